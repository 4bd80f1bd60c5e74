"""The shell between the supervisor and one worker: descriptors in pipes, payloads in shared memory."""

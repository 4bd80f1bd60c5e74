"""The way between the supervisor and one worker: a socket for small packets, shared memory for everything else.

`channel.Channel` is the supervisor's end, `worker_end.WorkerEnd` the worker's, `controls` what they say to each other
besides records, `board` what the worker is doing at this moment. Nothing in here knows Kafka, torch or what a payload
means.

Why nothing can block or break for ever:

- The supervisor never blocks. Its socket does not, and what the socket does not take yet waits in a short backlog.
- A worker blocks only where the supervisor is sure to help: on a full socket, which the supervisor empties whenever its
  loop turns, and on a full outbox, where it asks for room and goes on receiving until it gets some.
- Packets keep their boundaries (SOCK_SEQPACKET): one is there as a whole or not at all, so a process that is killed in
  the middle of a write leaves no half packet behind. What a packet points at was written before it was sent.
- Either side's death is the other's end of file: each process holds its own end only.
- Shared memory has no name (memfd): nothing is left behind, whoever is killed.
"""

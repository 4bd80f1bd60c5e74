"""The records, codecs, headers and topic names that upstream and downstream services share."""

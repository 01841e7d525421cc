"""From the Hub to the disk: a worker process with all the network code, and its supervisor."""

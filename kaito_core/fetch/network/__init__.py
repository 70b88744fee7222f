"""The network as fetches may use it: which hosts and addresses, through which proxy, and what an answer means."""

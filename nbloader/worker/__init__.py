"""What runs in a child process alone: all that opens a connection, and the trial of a build.

Run as `python -P -m nbloader.worker PARENT_PID`, or `nbloader.worker.trial` in its place. No other
part imports this package, so that nothing of it comes into a kernel: the parent names its modules
on a command line, and speaks with them over pipes (`transfer.protocol`).
"""

"""Who gives up when: the time limits of a transfer and of those who watch it, the innermost first.

Whoever is nearest gives up first, and knows best what to do instead. The next one out acts only if
that did not help, and the last can always act, for it sits in another process. `orders` says what
has to be shorter than what.

What a user sets is in `records.TransferPolicy`: `stall_timeout_s`, `answer_timeout_s`, `timeout_s`
and `large_file_timeout_s` have their places in the same order. All values are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

# -- how often somebody looks ----------------------------------------------------------------------

WAIT_STEP_S = 0.05
"""What waits on a main thread waits in such steps: an interrupt must reach it at once, on every
platform."""

TICK_S = 0.1
"""So often the engine looks at its pieces. Waits before an attempt end by the clock, of which
nobody is told."""

ASKING_STEP_S = 0.5
"""Who waits while another asks the Hub the same says so often that it lives, or it would be taken
for silent."""

PARENT_CHECK_EVERY_S = 0.5
"""So often a child process looks whether its parent is there. The end of its stdin is seen at once,
but need not come."""

ALIVE_EVERY_S = 1.0
"""So often the worker says that it lives."""

# -- the connection --------------------------------------------------------------------------------

CONNECT_TIMEOUT_S = 10.0
"""For a connection to be made, if `stall_timeout_s` is not shorter. A host that is there answers in
less than one; what is lost on the way is sent again after 1, 3 and 7 seconds."""

# Next: `stall_timeout_s`, for a byte, after which the connection is closed.

# -- the piece -------------------------------------------------------------------------------------

CANCEL_LIMIT_S = 2.0
"""A piece that is still there so long after it was cancelled hangs, and its process with it."""

SILENT_S = 5.0
"""At the end of a download, another connection goes after the bytes of one that was silent for so
long. Links that are alive answer in less."""

XET_SPARE_S = 1.0
"""hf_xet notices a silent connection by itself; it is given so long beyond the limit."""

XET_PATIENCE = 4
"""A piece over Xet stalls after so many times the time it should take: it comes all at once."""

HTTP_PATIENCE = 2
"""Over HTTP each wait has a timeout of its own; a piece that is silent for so many times the limit
is one whose timeouts do not act."""


def xet_piece_limit_s(stall_timeout_s: float, expected_s: float = 0.0) -> float:
    """Return how long a piece over Xet may be silent.

    Args:
        expected_s: how long it should take; 0 where that is not known.
    """
    return max(stall_timeout_s, XET_PATIENCE * expected_s) + XET_SPARE_S


def http_piece_limit_s(stall_timeout_s: float) -> float:
    """Return how long a piece over HTTP may be silent."""
    return HTTP_PATIENCE * stall_timeout_s + CONNECT_TIMEOUT_S


# -- the question ----------------------------------------------------------------------------------

XET_PROBE_WAIT_S = 1.0
"""What the selection waits for the answer of Xet storage; it takes a few tenths of a second."""

XET_PROBE_TIMEOUT_S = 3.0
"""For that answer, from the question on, beside other work."""

XET_CHUNKS_TIMEOUT_S = 5.0
"""For Xet storage to say where a chunk begins. To know it only saves bytes."""

CALL_TIMEOUT_S = 20.0
"""For the answer to a call; the Hub's library would wait for ever."""

MOST_ANSWER_WAIT_S = 30.0
"""For the Hub's first answer, after attempts that waited for less: on some links every answer
begins after 8 to 20 s."""

ANSWER_LIMIT_S = 60.0
"""For the whole of an answer, however steadily it trickles."""

HEADERS_PATIENCE = 2
"""Headers have to be there in so many waits: a server may send a byte now and then, or answers that
something is on its way, and each of them ends a wait."""


def headers_limit_s(connect_s: float, timeout_s: float) -> float:
    """Return how long it may take from a request to the end of the headers of its answer.

    Args:
        connect_s, timeout_s: for a connection to be made, and for each wait.
    """
    return connect_s + HEADERS_PATIENCE * timeout_s


# -- the file --------------------------------------------------------------------------------------

MAX_RETRY_AFTER_S = 300.0
"""The longest wait that a server may ask for. The Hub's limits are counted over five minutes, so no
honest wait is longer."""

# Next: `timeout_s` and `large_file_timeout_s`, for a byte, over all attempts for a file.

# -- the parent of the worker ----------------------------------------------------------------------

KILL_LIMIT_S = 1.0
"""For a killed worker to be gone. One that waits for a dead disk cannot be collected, and a cell
that was stopped has to come back at once."""

SILENCE_SPARE_S = 2.0
"""What native code may hold up in a worker ends by `stall_timeout_s`. One that says nothing for so
long beyond that, two words in a row, hangs as a whole."""

START_TIMEOUT_S = 60.0
"""For the first command to a worker: a parent that was interrupted while it started the process may
never speak."""

QUIET_SPARE_S = 60.0
"""The worker gives a file up by itself first; this is for a worker that cannot."""


def silence_limit_s(stall_timeout_s: float) -> float:
    """Return how long a worker may say nothing."""
    return stall_timeout_s + SILENCE_SPARE_S


def quiet_limit_s(file_limit_s: float) -> float:
    """Return how long there may be no sign of work, whatever workers say.

    Args:
        file_limit_s: the longest that one of the files may make no progress.
    """
    return file_limit_s + QUIET_SPARE_S


# -- the parent of a trial build -------------------------------------------------------------------

TRIAL_KILL_LIMIT_S = 2.0
"""For a killed trial to be gone: one that waits for a dead disk cannot be collected either."""

TRIAL_LIMIT_S = 180.0
"""For the trial build of a model. Imports take 5 to 20 s, the build of 100 GB half a minute."""


def orders(
    *, stall_timeout_s: float, answer_timeout_s: float, timeout_s: float
) -> Mapping[str, tuple[float, ...]]:
    """Return what has to rise, by what would go wrong if it did not.

    Args:
        stall_timeout_s, answer_timeout_s, timeout_s: as in `records.TransferPolicy`.
    """
    return {
        "who looks too seldom sees too late": (WAIT_STEP_S, TICK_S, CANCEL_LIMIT_S),
        "who waits while another asks is taken for silent": (ASKING_STEP_S, SILENT_S),
        "a worker that lives is taken for one that hangs": (ALIVE_EVERY_S, SILENCE_SPARE_S),
        "a second connection is asked when the first is given up": (SILENT_S, stall_timeout_s),
        "the file is given up before its connection over HTTP": (
            CONNECT_TIMEOUT_S,
            stall_timeout_s,
            http_piece_limit_s(stall_timeout_s),
            timeout_s,
            quiet_limit_s(timeout_s),
        ),
        "the file is given up before its connection over Xet": (
            stall_timeout_s,
            xet_piece_limit_s(stall_timeout_s),
            timeout_s,
        ),
        "the transfer is given up before its worker": (
            stall_timeout_s,
            silence_limit_s(stall_timeout_s),
            quiet_limit_s(timeout_s),
        ),
        "a question takes longer than what it is asked for": (
            XET_PROBE_WAIT_S,
            XET_PROBE_TIMEOUT_S,
            answer_timeout_s,
            CALL_TIMEOUT_S,
            MOST_ANSWER_WAIT_S,
            ANSWER_LIMIT_S,
            timeout_s,
        ),
    }

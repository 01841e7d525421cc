"""What is built beside the download: components that are complete, and a rehearsal of the rest.

What a library does for the first time in a process takes a second: lazy tables, conversion maps,
tokenizers. A pipeline of diffusers pays it while its components are built one after the other, as
they arrive. A model of one piece is *rehearsed*: built once of its small files and the headers of
its weights, called, and thrown away.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from nbloader.errors import MissingTensorsError, NbloaderError
from nbloader.notebook import Background, NoTurnError
from nbloader.records import ComponentLoaded, Kind, Notice, Selected
from nbloader.stages.planned import Planned
from nbloader.stages.run import cancelled_error

if TYPE_CHECKING:
    from nbloader.loaders import Arrivals, Building, Direct, Passing
    from nbloader.loaders.placing import Waiting
    from nbloader.notebook import Turns
    from nbloader.stages.passing import PassingLoad
    from nbloader.stages.run import Run
    from nbloader.transfer.protocol import Fetch
    from nbloader.trial import Task

T = TypeVar("T")
Tested: TypeAlias = tuple[frozenset[str], frozenset[str]]
"""The components whose weights are known to be finite, and those that were called."""

REHEARSED_BYTES = 2_000_000_000
"""A larger model is not rehearsed: where a library puts tensors together while it loads them, the
empty ones take memory, too; and a second counts for little beside such a download."""

REHEARSED_CALL_BYTES = 1_000_000_000
"""A model with larger files is built in a rehearsal, and not called: a call reads all of it."""


class Steps:
    """Steps of work that are taken one at a time, between two looks at the download.

    They are done at once; where cells run beside the job, on a thread that waits for its turn, so
    that the download is looked at meanwhile.

    Args:
        beside: whether they are done on a thread in any case: they wait for the download.
    """

    def __init__(self, run: Run, *, beside: bool = False) -> None:
        self._run = run
        self._beside = beside
        self._waiting: Background | None = None
        self._given_up = threading.Event()
        self._found: list[Any] = []

    @property
    def are_under_way(self) -> bool:
        """Whether one was begun whose outcome nobody has taken."""
        return self._waiting is not None

    def take(self, work: Callable[[], T]) -> list[T]:
        """Do the work, or go on waiting for what was begun; return what came of it, if anything.

        Raises:
            BaseException: whatever the work raised.
        """
        if self._run.turns is None and not self._beside:
            return [work()]
        if self._waiting is None:
            self._given_up.clear()
            turn = partial(self._in_turn, self._run.turns, work)
            self._waiting = Background(turn, imports=False)
        return self._outcome() if self._waiting.check() else []

    def _in_turn(self, turns: Turns | None, work: Callable[[], Any]) -> None:
        if turns is None:
            self._found.append(work())
            return
        cancelled = self._run.cancelled
        with suppress(NoTurnError):
            given_up = lambda: self._given_up.is_set() or cancelled.is_set()  # noqa: E731
            self._found.append(turns.take(work, given_up=given_up))

    def _outcome(self) -> list[Any]:
        self._waiting = None
        found, self._found = self._found, []
        return found

    def finish(self) -> list[Any]:
        """Wait for what was begun, and return what came of it. Raises as `take` does."""
        if self._waiting is None:
            return []
        self._waiting.wait(tick=self._run.reporter.tick)
        return self._outcome()

    def give_up(self) -> None:
        """Give up what waits for its turn; what is under way is waited for, and is lost."""
        self._given_up.set()
        with suppress(Exception):
            self.finish()
        self._outcome()


class Rehearsal:
    """A build of a model of one piece from files without weights, which is thrown away.

    To be closed.

    Attributes:
        folder: where the worker writes those files; it is there once they are complete.
        notices: what the library warned of, some of which it does only once in a process.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._private = Path(tempfile.mkdtemp(prefix="nbloader-rehearsal-"))
        self.folder = self._private / "files"
        self.notices: list[Notice] = []
        self._done = False

    @property
    def is_due(self) -> bool:
        """Whether it can be done, and was not."""
        return not self._done and self.folder.exists()

    def __call__(self) -> None:
        """Build, call and throw away.

        Raises:
            MissingTensorsError: the files lack tensors, as the load would find out.
        """
        from nbloader import loaders

        self._done = True
        selection, placement = self._task.selection, self._task.placement
        try:
            with loaders.as_it_was():
                with closing(
                    loaders.Building(
                        selection,
                        self.folder,
                        placement,
                        self._task.loader_kwargs,
                        attention=self._task.attention,
                    )
                ) as building:
                    while (told := building.step()) is not None:
                        if isinstance(told, Notice):
                            self.notices.append(told)
                    model = building.model()
                if selection.total <= REHEARSED_CALL_BYTES:
                    loaders.check_call(model, selection, placement)
        except MissingTensorsError:
            raise
        except Exception:  # What is wrong with empty weights may be right with the true ones.
            return
        finally:
            self.close()

    def close(self) -> None:
        """Remove its files."""
        self._done = True
        shutil.rmtree(self._private, ignore_errors=True)


def rehearsal_of(run: Run, selected: Selected) -> Rehearsal | None:
    """Return a rehearsal for the load of a selection; None where nothing would come of it."""
    from nbloader.trial import Task, task_of

    selection = selected.selection
    weights = {path for part in selection.components for path in part.weights}
    if selection.kind is Kind.DIFFUSERS or weights <= set(selected.cached):
        return None
    if run.request.force or selection.total > REHEARSED_BYTES:
        return None
    task = task_of(selection, selected.weights, run.request.loader_kwargs, run.request.attention)
    if not isinstance(task, Task):
        return None
    with suppress(OSError):  # No temporary folder.
        return Rehearsal(task)
    return None


class Ahead:
    """The build of a model, from the end of the imports on. To be closed.

    Args:
        building: makes the build of what is planned, with the files that are there, and what reads
            weights already.
        direct: makes what reads weights of a folder to where they will stay.
        passing: the files that go once they are read; None if all stay.
    """

    def __init__(
        self,
        run: Run,
        selected: Selected,
        building: Callable[[Planned, Arrivals, Direct | None], Building],
        direct: Callable[[Path], Direct],
        passing: PassingLoad | None = None,
    ) -> None:
        from nbloader.loaders import Arrivals

        self._run = run
        self._selected = selected
        self._make = building
        self._make_direct = direct
        self._direct: Direct | None = None
        self._passing = passing
        self._steps = Steps(run, beside=passing is not None)
        self._rehearsal = rehearsal_of(run, selected) if passing is None else None
        self._arrivals = Arrivals(selected.selection, all_there=False)
        # What the build may begin with: of files that go, it waits for each when it reads it.
        self._startable = self._arrivals
        if passing is not None:
            self._startable = Arrivals(selected.selection, all_there=False, passing=True)
        self._to_stay = {file.path for file in selected.selection.files}
        self._to_stay -= passing.paths if passing else set()
        self._building: Building | None = None
        self._planned: Planned | None = None
        self._folder = Path(selected.folder)
        self._waits = False
        self._told: list[ComponentLoaded | Notice] = []

    def order(self) -> Fetch:
        """Return what a worker is told to fetch."""
        from nbloader.transfer.protocol import Fetch

        if self._passing is not None:
            return self._passing.order()
        return Fetch(sketch=str(self._rehearsal.folder) if self._rehearsal else None)

    def passing(self) -> Passing | None:
        """Return the files that go once they are read, for what reads them; None if all stay."""
        from nbloader.loaders import Passing

        files = self._passing
        if files is None:
            return None
        return Passing(
            paths=files.paths,
            folder=files.folder,
            outlines=files.outlines,
            is_there=self._arrivals.has_file,
            read=files.read,
        )

    def notices(self) -> Sequence[Notice]:
        """Tell what became of files that were not to stay."""
        return self._passing.notices() if self._passing is not None else ()

    def heard(self, path: str) -> None:
        """Take note of a file that is in its place, with the right content."""
        self._arrivals.note(path)
        if self._passing is not None:
            self._passing.heard(path)
            self._startable.note(path)
            self._to_stay.discard(path)
        self._waits = False

    def read(self, *, all_there: bool = False) -> None:
        """Begin to read weights that are there to where they will stay. Torch is imported.

        Args:
            all_there: whether all files are in their place.
        """
        self._arrivals.all_there = self._arrivals.all_there or all_there
        if not self._selected.folder or not self._may_build():
            return
        if self._building is not None and self._passing is None:
            return  # The build goes on with it.
        if self._direct is None:
            self._direct = self._make_direct(Path(self._selected.folder))
        self._direct.begin(self._arrivals.has_file)

    def look(self) -> None:
        """Build one more component, if one is complete; or rehearse. The libraries are imported.

        Raises:
            NbloaderError: the model cannot be built.
        """
        if self._rehearsal is not None and (self._rehearsal.is_due or self._steps.are_under_way):
            self._steps.take(self._rehearsal)
            return
        by_parts = self._selected.selection.kind is Kind.DIFFUSERS or self._passing is not None
        if not by_parts or not self._selected.folder or not self._may_build():
            return
        if self._passing is not None:
            self.read()  # What reads for the build is made here, before another thread builds.
        if self._waits:
            return
        for told in self._steps.take(self._step):
            self._tell(told)

    def _may_build(self) -> bool:
        """Say whether what the library will open is there: a copy, where weights go."""
        if self._passing is None:
            return True
        if not self._passing.is_ready():
            return False
        for path in self._passing.paths:
            self._startable.note(path)
        self._startable.all_there = not self._to_stay or self._arrivals.all_there
        return True

    def _step(self) -> ComponentLoaded | Notice | Waiting | None:
        if self._building is None or self._planned is None:
            self._building, self._planned = self._begun(self._folder)
        self._planned.update()
        try:
            return self._building.step()
        except NbloaderError as error:
            error.message = self._planned.named(error.message)
            raise

    def _begun(self, folder: Path) -> tuple[Building, Planned]:
        passing = self._passing
        if passing is not None and self._direct is None:
            # Whatever else reads that folder finds nothing in it.
            self._direct = self._make_direct(folder)
        planned = Planned(
            self._selected.selection, folder, None if passing is None else passing.folder
        )
        return self._make(planned, self._startable, self._direct), planned

    def _tell(self, told: ComponentLoaded | Notice | Waiting | None) -> bool:
        """Publish what came of a step; say whether there are more to take."""
        if isinstance(told, Notice) and self._planned is not None:
            told = replace(told, message=self._planned.named(told.message))
        if isinstance(told, ComponentLoaded | Notice):
            self._told.append(told)
            self._run.reporter.publish(told)
            return True
        self._waits = told is not None
        return self._waits

    def model(self, folder: Path) -> Any:
        """Build what is left, now that all files are there, and return the model.

        Args:
            folder: of the files.

        Raises:
            NbloaderError: the model cannot be built, or the run was cancelled.
        """
        from nbloader.loaders import move_paths

        run = self._run
        self._folder = folder
        self._arrivals.all_there = True
        if self._passing is not None:
            self.read(all_there=True)
        for told in self._steps.finish():
            self._tell(told)
        self._startable.all_there = True
        while self._tell(run.take(self._step, run.reporter.tick)):
            if run.cancelled.is_set():
                raise cancelled_error()
        for notice in self._rehearsal.notices if self._rehearsal else ():
            # Some warnings a library gives only once in a process.
            if notice.reference == "library-warning" and notice not in self._told:
                self._tell(notice)
        assert self._building is not None
        assert self._planned is not None
        model = self._building.model()
        self._planned.leave(model, move_paths)
        return model

    @property
    def tested(self) -> Tested:
        """What was tested of the model while it was built."""
        building, adapted = self._building, bool(self._selected.selection.adapters)
        if building is None or adapted:  # An adapter has changed what was tested.
            return frozenset(), frozenset()
        return frozenset(building.tested), frozenset(building.called)

    def forget(self) -> None:
        """Throw away what was built: it is to be placed in another way."""
        self._steps.give_up()
        self._end()
        self._building, self._planned, self._direct, self._waits = None, None, None, False

    def close(self) -> None:
        """Free what nobody has taken, and end what goes on."""
        if self._passing is not None and self._direct is not None:
            self._direct.close()  # A step may wait for files that do not come.
        self._steps.give_up()
        self._end()
        if self._rehearsal is not None:
            self._rehearsal.close()
        if self._passing is not None:
            self._passing.close()

    def _end(self) -> None:
        if self._building is not None:
            self._building.close()
        if self._planned is not None:
            self._planned.close()
        if self._direct is not None:
            self._direct.close()

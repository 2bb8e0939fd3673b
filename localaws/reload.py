"""Reload: replaces the processes of functions after a file of their code or of their layers was saved."""

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

SOURCES = (".cfg", ".csv", ".html", ".ini", ".j2", ".json", ".py", ".sql", ".toml", ".txt", ".xml", ".yaml", ".yml")
"""Suffixes of the files that a function may load. Others, such as logs and an editor's temporary files, are ignored."""
STEP = 100  # ms without another change until changes are handled; also the longest wait of a thread after `stop`
NAMED = 3  # functions and files that a line names


class Reload:
    """Watches the folders of functions and their layers, and the templates.

    Args:
        folders: the code folder of each function and the folders of its layers, by the function's name.
        template: the template. A change of it or of a nested template is reported only.
        replace: `Runtime.replace`.
        name: returns the logical ID of a function.
        on_notice: called with one line about new processes or a changed template.
        on_failure: called with one line about functions that cannot be imported.
    """

    def __init__(
        self,
        folders: Mapping[str, Iterable[Path]],
        template: Path,
        *,
        replace: Callable[[list[str]], Mapping[str, str]],
        name: Callable[[str], str],
        on_notice: Callable[[str], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._folders = {function: [path.resolve() for path in paths] for function, paths in folders.items()}
        self._templates = _templates(template.resolve())
        self._replace = replace
        self._name = name
        self._on_notice = on_notice
        self._on_failure = on_failure
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start to watch, on one thread for the code and one for the templates."""
        code = {folder for folders in self._folders.values() for folder in folders if folder.is_dir()}
        # Editors replace a file when they save it, so its folder is watched
        templates = {path.parent for path in self._templates}
        for watch in (
            partial(self._watch, code, self._on_code, recursive=True),
            partial(self._watch, templates, self._on_templates, recursive=False),
        ):
            threading.Thread(target=watch, name="reload", daemon=True).start()

    def stop(self) -> None:
        """Stop to watch."""
        self._stopping.set()

    def _watch(self, folders: set[Path], on_change: Callable[[list[Path]], None], *, recursive: bool) -> None:
        from watchfiles import watch  # imported here, on its own thread, because it would delay the start

        try:
            for changes in watch(
                *sorted(folders),
                watch_filter=None,
                step=STEP,
                stop_event=self._stopping,
                recursive=recursive,
                force_polling=False,
                ignore_permission_denied=True,
            ):
                on_change(sorted({Path(path) for _, path in changes}))
        except (OSError, RuntimeError) as error:  # for example, the limit of inotify watches is reached
            self._on_failure(f"changes of files are not noticed any more ({error}); restart to run changed code")

    def _on_code(self, changed: list[Path]) -> None:
        files: dict[Path, None] = {}
        users = []
        for function, folders in self._folders.items():
            if found := [file for file in changed for folder in folders if _is_source(file, folder)]:
                users.append(function)
                files.update(dict.fromkeys(found))
        if not users:
            return
        reasons = self._replace(users)
        outcomes: dict[str | None, list[str]] = {}
        for function in users:
            outcomes.setdefault(reasons.get(function), []).append(self._name(function))
        for reason, functions in outcomes.items():
            what = f"reloaded: {_listed(functions)} ({_listed(map(_shown, files))})"
            if reason is None:
                self._on_notice(what)
            else:
                self._on_failure(f"not {what}: {reason}")

    def _on_templates(self, changed: list[Path]) -> None:
        if files := self._templates.intersection(changed):
            self._on_notice(f"{_listed(map(_shown, sorted(files)))} changed: restart to apply the change")


def _templates(template: Path) -> set[Path]:
    """Returns the paths of a template and of its nested templates."""
    names = re.findall(r"""(?:TemplateURL|Location)["']?:\s*["']?([^\s"',}]+)""", template.read_text())
    return {template, *(path for name in names if (path := (template.parent / name).resolve()).is_file())}


def _is_source(file: Path, folder: Path) -> bool:
    if file.suffix not in SOURCES or not file.is_relative_to(folder):
        return False
    return not any(part.startswith(".") or part == "__pycache__" for part in file.relative_to(folder).parts)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")

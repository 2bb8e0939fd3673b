"""Reload: which saved files replace the processes of which functions."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localaws.reload import Reload
from localaws.tests.support import wait_until


class Project:
    """Two functions with a layer each, and a template with a nested one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replaced: list[list[str]] = []
        self.errors: dict[str, str] = {}
        self.notices: list[str] = []
        self.failures: list[str] = []
        for name in ("a/code", "b/code", "layer"):
            (folder / name).mkdir(parents=True)
        (folder / "template.yaml").write_text("TemplateURL: nested/more.yaml\n")
        (folder / "nested").mkdir()
        (folder / "nested" / "more.yaml").write_text("Resources: {}\n")
        self.reload = Reload(
            {"a": [folder / "a"], "b": [folder / "b", folder / "layer"]},
            folder / "template.yaml",
            replace=self._replace,
            name=lambda name: f"Function-{name}",
            on_notice=self.notices.append,
            on_failure=self.failures.append,
        )

    def _replace(self, functions: list[str]) -> dict[str, str]:
        self.replaced.append(functions)
        return {name: self.errors[name] for name in functions if name in self.errors}

    def save_until(self, path: str, condition: Callable[[], object]) -> None:
        """Save a file until the condition is met: the first time may be before the folder is watched."""
        number = iter(range(10_000))

        def saved() -> object:
            if next(number) % 100 == 0:
                (self.folder / path).write_text(f"# {next(number)}")
            return condition()

        wait_until(saved)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    made = Project(tmp_path)
    made.reload.start()
    yield made
    made.reload.stop()


def test_a_saved_file_replaces_the_functions_whose_folder_has_it(project: Project) -> None:
    project.save_until("a/code/x.py", lambda: project.notices)

    assert project.notices[0] == "reloaded: Function-a (a/code/x.py)"
    assert project.replaced[0] == ["a"]


def test_a_saved_file_of_a_layer_replaces_the_functions_with_the_layer(project: Project) -> None:
    project.save_until("layer/x.py", lambda: project.notices)

    assert project.notices[0] == "reloaded: Function-b (layer/x.py)"


def test_a_file_that_an_editor_replaces_counts_as_saved(project: Project) -> None:
    project.save_until("a/x.py", lambda: project.notices)
    project.notices.clear()

    (project.folder / "a" / "x.py~").write_text("# new")
    (project.folder / "a" / "x.py~").replace(project.folder / "a" / "x.py")

    wait_until(lambda: "reloaded: Function-a (a/x.py)" in project.notices)


def test_caches_logs_and_an_editors_own_files_are_ignored(project: Project) -> None:
    project.save_until("a/x.py", lambda: project.replaced)
    project.replaced.clear()
    (project.folder / "a" / "__pycache__").mkdir()
    for name in ("__pycache__/x.py", "x.pyc", ".x.py.swp", "x.py~", ".#x.py", "#x.py#", "4913", "function.log"):
        (project.folder / "a" / name).write_text("ignored")

    project.save_until("b/end.py", lambda: ["b"] in project.replaced)

    assert all(functions in (["b"], ["a"]) for functions in project.replaced)
    assert not any("ignored" in line or "x.py~" in line or "__pycache__" in line for line in project.notices)
    assert not any(line != "reloaded: Function-a (a/x.py)" for line in project.notices if "-a" in line)


def test_a_function_that_cannot_be_imported_is_named_with_the_reason(project: Project) -> None:
    project.errors["a"] = "SyntaxError: invalid syntax (x.py, line 1)"

    project.save_until("a/x.py", lambda: project.failures)

    assert project.failures[0] == ("not reloaded: Function-a (a/x.py): SyntaxError: invalid syntax (x.py, line 1)")
    assert project.notices == []


@pytest.mark.parametrize("path", ["template.yaml", "nested/more.yaml"])
def test_a_saved_template_is_reported_and_replaces_nothing(project: Project, path: str) -> None:
    project.save_until(path, lambda: project.notices)

    assert project.notices[0] == f"{path} changed: restart to apply the change"
    assert project.replaced == []

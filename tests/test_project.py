"""`[tool.trimtab]` of a pyproject.toml: found upwards, checked in full; a mistake is said with the nearest word."""

from dataclasses import dataclass

import pytest

from trimtab.config import LeftOut, Project, find_project, project_of
from trimtab.detectors import DETECTORS
from trimtab.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Hot:
    code: str = "hot"
    height: float = 3.0
    updates: int = 4
    reads: tuple[str, ...] = ()


def write(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(text)
    return folder / "pyproject.toml"


FULL = """
[project]
name = "mine"
[tool.trimtab]
every = 16
overhead = 0.02
ignore = ["hot@head.*", { code = "hot", subject = "tail", because = "sparse by design" }]
[tool.trimtab.detectors.hot]
height = 12.0
"""


def test_the_table_is_found_upwards_and_read_in_full(tmp_path):
    path = write(tmp_path, FULL)
    write(tmp_path / "a", "[tool.ruff]\nline-length = 3\n")  # has no table of ours and is passed over
    found = find_project(tmp_path / "a" / "b")
    assert found.path == str(path)
    assert (found.every, found.overhead) == (16, 0.02)
    assert found.ignore == (
        LeftOut(code="hot", subject="head.*"),
        LeftOut(code="hot", subject="tail", because="sparse by design"),
    )
    assert found.thresholds([Hot()]) == (Hot(height=12.0),)
    assert project_of(path) == found
    assert project_of(False) == Project()


def test_the_first_folder_with_a_table_wins_and_none_says_nothing(tmp_path):
    write(tmp_path / "one", "[tool.trimtab]\nevery = 1\n")
    write(tmp_path / "two", "[tool.trimtab]\nevery = 2\n")
    (tmp_path / "three").mkdir()
    assert find_project(tmp_path / "three", tmp_path / "two", tmp_path / "one").every == 2
    assert find_project(tmp_path / "three") == Project()
    assert Project().thresholds([Hot()]) == (Hot(),)


def test_the_search_begins_at_the_working_directory(tmp_path, monkeypatch):
    write(tmp_path, "[tool.trimtab]\nevery = 5\n")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert find_project().every == 5


MISTAKES = {
    "evry = 3": r"no setting 'evry'\. Did you mean 'every'\? Known: ignore, every, overhead, detectors",
    "every = 'often'": r"'every' expects int",
    "every = true": r"'every' expects int",
    "every = 0": r"every expects at least 1, got 0",
    "overhead = 2": r"overhead expects 0 to 1, got 2",
    "ignore = 'hot'": r"'ignore' expects",
    "ignore = [{ cod = 'hot' }]": r"no setting 'ignore\.0\.cod'\. Did you mean",
    "detectors = 3": r"'detectors' expects",
    "detectors.hott.height = 3": r"no detector has the code 'hott'\. Did you mean 'hot'\?",
    "detectors.hot = 3": r"detectors\.hot expects a table of thresholds, got 3",
    "detectors.hot.heigt = 3": r"no setting 'detectors\.hot\.heigt'\. Did you mean 'detectors\.hot\.height'\?",
    "detectors.hot.height = 'high'": r"'detectors\.hot\.height' expects float",
    "detectors.hot.code = 'cold'": r"detectors\.hot\.code is no threshold\. Known: height, updates",
    "every = ": r"cannot be read",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_says_where_it_stands_and_what_is_known(tmp_path, line):
    path = write(tmp_path, f"[tool.trimtab]\n{line}\n")
    with pytest.raises(ConfigError, match=MISTAKES[line]) as caught:
        find_project(tmp_path).thresholds([Hot()])
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_about_us_is_never_judged(tmp_path):
    write(tmp_path, "trimtab = [")
    assert find_project(tmp_path) == Project()


def test_a_named_file_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        project_of(tmp_path / "pyproject.toml")


def test_codes_are_checked_against_the_catalogue_and_rules_elsewhere_are_passed_over(tmp_path):
    path = write(tmp_path, "[tool.trimtab]\nignore = ['hott']\ndetectors.warm.height = 3\n")
    found = project_of(path)
    with pytest.raises(ConfigError, match=r"no detector has the code 'hott'\. Did you mean 'hot'\?"):
        found.check(["hot"])
    found.check(["hott"])
    assert found.thresholds([Hot()], known=["warm"]) == (Hot(),)


@pytest.mark.parametrize("rule", DETECTORS, ids=lambda rule: rule.code)
def test_the_thresholds_of_every_rule_of_the_catalogue_can_be_set(rule):
    found = Project(path="p", detectors={rule.code: {"confirm": 7}})
    (changed,) = found.thresholds([rule])
    assert changed.confirm == 7
    assert type(changed) is type(rule)

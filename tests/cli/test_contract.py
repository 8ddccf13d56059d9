"""What holds for every verb: help with an example, one line for a mistake, exit codes, JSON, no torch, no colours."""

import json
import os
import pty
import re
import resource
import subprocess
import sys

import pytest

import trimtab
from tests.cli.commands import run, start
from tests.report.recorded import record, training
from trimtab.cli import main
from trimtab.records import Severity

VERBS = [
    "watch",
    "diagnose",
    "report",
    "compare",
    "runs",
    "mark",
    "rules",
    "explain",
    "train",
    "sweep",
    "check",
    "checkpoint",
]


# --- help -------------------------------------------------------------------------------------------------------


def test_help_lists_every_verb_with_a_line_that_is_not_cut(capsys):
    said = run(capsys, "--help")
    assert said.code == 0
    assert re.findall(r"^  (\w+) {2,}[A-Z].*\.$", said.out, re.MULTILINE) == VERBS
    assert run(capsys).out == said.out


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_says_what_it_does_and_shows_examples(capsys, verb):
    said = run(capsys, verb, "--help")
    assert said.code == 0
    assert said.out.startswith(f"Usage: trimtab {verb} ")
    examples = said.out.partition("Examples:")[2].split("\n")
    assert any(line.strip().startswith(f"trimtab {verb}") for line in examples)
    assert all(len(line) <= 80 for line in said.out.splitlines())
    assert run(capsys, verb, "-h").out == said.out


def test_the_version_is_printed(capsys):
    assert run(capsys, "--version").out == f"{trimtab.__version__}\n"


def test_help_comes_at_once():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = start("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.code == 0
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


# --- mistakes ---------------------------------------------------------------------------------------------------

MISTAKES = {
    ("nope",): r"No such command 'nope'.*Try: trimtab --help",
    ("diagnos",): r"Did you mean 'diagnose'\?",
    ("diagnose", "--no-such"): r"No such option: --no-such.*Try: trimtab diagnose --help",
    ("diagnose", "--fail-on", "bad"): r"'--fail-on'.*'bad' is not one of 'info', 'warning', 'error', 'fatal', 'never'",
    ("diagnose", "--format", "yaml"): r"'--format'.*'yaml' is not one of 'text', 'json'",
    ("diagnose", "2999"): r"no run in .* begins with '2999'.*There: ",
    ("diagnose", "no/such/folder"): r"there is no folder 'no/such/folder'",
    ("diagnose", "--good", "2999"): r"begins with '2999'",
    ("report", "2999"): r"begins with '2999'",
    ("report", "-o", "no/such/folder/x.html"): r"report: cannot write no/such/folder/x.html.*-o",
    ("compare",): r"Missing argument 'RUN'.*Try: trimtab compare --help",
    ("compare", "last", "2999"): r"begins with '2999'",
    ("runs", "--most", "0"): r"'--most'.*",
    ("mark", "2999"): r"begins with '2999'",
    ("rules", "detektor"): r"there is no kind 'detektor'\. Did you mean 'detector'\?",
    ("explain",): r"Missing argument 'CODE'",
    ("explain", "gradient-explodes"): r"nothing is called 'gradient-explodes'\. Did you mean 'gradient-exploding'\?",
    ("train",): r"Missing argument 'SYSTEM'",
    ("train", "separabilty"): r"there is no system 'separabilty'\. Did you mean 'separability'\?",
    ("train", "separability", "--fault", "nope"): r"no fault 'nope'",
    ("train", "separability", "--preset", "nope"): r"no preset 'nope'",
    ("train", "separability", "widht=3"): r"widht.*Did you mean 'width'\?",
    ("train", "separability", "--respond", "nope"): r"there is no action 'nope'",
    ("watch",): r"Missing argument.*Try: trimtab watch --help",
    ("watch", "--no-such", "train.py"): r"No such option: --no-such",
    ("watch", "no_such_script.py"): r"there is no script 'no_such_script.py'",
    ("watch", "--", "no-such-command", "-x"): r"cannot start 'no-such-command': No such file",
    ("watch", "--milestone", "soon", sys.executable): r"milestone 'soon': expected 'METRIC >= VALUE by STEP'",
    ("watch", "--ignore", "dead-unit", sys.executable): r"ignore: no detector has the code 'dead-unit'",
    ("watch", "--respond", "nope=stop", sys.executable): r"respond: no detector has the code 'nope'",
    ("watch", "--respond", "patience-spent=early-stop", sys.executable): r"there is no patience on the command line",
    ("watch", "--respond", "sotp", sys.executable): r"no action 'sotp'\. Did you mean 'stop'\?",
    ("watch", "--respond", "loss-spike=safe", sys.executable): r"no action 'safe'\..*Known: .*; or 'safe' alone",
    ("watch", "--every", "0", sys.executable): r"'--every'",
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_clear_line_and_exit_code_2(runs, capsys, words):
    said = run(capsys, *words)
    assert said.code == 2, said
    assert said.out == ""
    assert re.fullmatch(rf"trimtab: .*{MISTAKES[words]}.*\n", said.err), said


def test_an_empty_folder_of_runs_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRIMTAB_RUNS", str(tmp_path / "none"))
    assert re.fullmatch(r"trimtab: .*none holds no runs; record one first.*\n", run(capsys, "diagnose").err)
    said = run(capsys, "runs")
    assert said.code == 0
    assert "trimtab watch" in said.out


def test_a_failure_of_trimtab_itself_is_one_line_and_the_traceback_only_when_asked_for(runs, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("inside\ntwo lines")

    monkeypatch.setattr("trimtab.run.list_runs", fail)
    monkeypatch.delenv("TRIMTAB_DEBUG", raising=False)
    said = run(capsys, "runs")
    assert said.code == 2
    assert re.fullmatch(
        r"trimtab: failed unexpectedly: ZeroDivisionError: inside two lines \(TRIMTAB_DEBUG=1 .*\)\n", said.err
    )
    monkeypatch.setenv("TRIMTAB_DEBUG", "1")
    assert "Traceback (most recent call last)" in run(capsys, "runs").err
    monkeypatch.delenv("TRIMTAB_DEBUG")
    said = run(capsys, "--debug", "runs")
    monkeypatch.delenv("TRIMTAB_DEBUG")
    assert "Traceback (most recent call last)" in said.err


def test_ctrl_c_is_exit_code_130(runs, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("trimtab.run.list_runs", interrupt)
    assert main(["runs"]) == 130


def test_a_reader_that_leaves_early_is_no_failure(runs):
    command = f"{sys.executable} -m trimtab rules | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- exit codes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["diagnose", "report"])
@pytest.mark.parametrize(
    ("name", "level", "code"),
    [
        ("clean", None, 0),
        ("clean", "info", 0),
        ("broken", None, 1),
        ("broken", "info", 1),
        ("broken", "error", 1),
        ("broken", "never", 0),
    ],
)
def test_the_exit_code_says_whether_something_was_found(runs, capsys, tmp_path, verb, name, level, code):
    words = [verb, runs[name].path, *(["--fail-on", level] if level else [])]
    assert run(capsys, *words, *(["-o", tmp_path / "x.html"] if verb == "report" else [])).code == code


def test_the_level_is_compared_with_the_worst_finding(capsys, tmp_path):
    worst = max(f.severity for f in record(tmp_path, training(60, loss=lambda s: float("nan"))).findings())
    assert worst >= Severity.ERROR
    codes = [run(capsys, "diagnose", "--root", tmp_path, "--fail-on", str(level)).code for level in Severity]
    assert codes == [int(worst >= level) for level in Severity]


# --- JSON -------------------------------------------------------------------------------------------------------

DOCUMENTS = {
    "diagnose": ["diagnose", "last"],
    "report": ["report", "last", "-o", "{tmp}/x.html"],
    "compare": ["compare", "last", "last"],
    "runs": ["runs"],
    "mark": ["mark", "last", "seen"],
    "rules": ["rules"],
    "explain": ["explain", "loss-not-finite"],
}


@pytest.mark.parametrize("verb", DOCUMENTS)
def test_json_is_one_strict_document_on_standard_output(runs, capsys, tmp_path, verb):
    words = [word.format(tmp=tmp_path) for word in DOCUMENTS[verb]]
    said = run(capsys, *words, "--format", "json")
    assert said.code in (0, 1)
    assert said.err == ""
    assert json.loads(said.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_numbers_that_are_none_are_words_in_json(runs, capsys):
    found = json.loads(run(capsys, "diagnose", "last", "--format", "json").out)["verdict"]["findings"]
    assert "NaN" in [finding["measured"] for finding in found]


# --- what is not loaded, and what is not printed ----------------------------------------------------------------


def test_no_verb_that_reads_loads_torch(runs, tmp_path):
    verbs = [[word.format(tmp=tmp_path) for word in words] for words in DOCUMENTS.values()]
    code = (
        f"import sys; from trimtab.cli import main; codes = [main(words) for words in {verbs!r}];"
        "sys.exit(2 in codes or bool({'torch', 'trimtab.guard'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def in_a_terminal(*words, **environment):
    """What a command prints where standard output is a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "trimtab", *words]
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**env, "TERM": "xterm", **environment}) as child:
        os.close(theirs)
        said = b""
        while True:
            try:
                said += (part := os.read(ours, 65536))
            except OSError:  # the other side is closed
                break
            if not part:
                break
        child.wait()
    os.close(ours)
    return said.decode()


def test_colours_stand_on_a_terminal_that_wants_them_and_nowhere_else(runs, capsys):
    words = ("diagnose", "last")
    assert "\x1b[" in in_a_terminal(*words)
    assert "\x1b[" not in in_a_terminal(*words, NO_COLOR="1")
    piped = run(capsys, *words)
    assert "\x1b" not in piped.out + piped.err
    assert "gradient-exploding" in piped.out


def test_brackets_in_texts_are_printed_as_they_are(capsys, tmp_path):
    run_ = record(
        tmp_path, training(5), name="[bold]x[/bold]", ended="failed", how={"reason": "KeyError: [red]a[/red]"}
    )
    assert "KeyError: [red]a[/red]" in run(capsys, "diagnose", run_.path).out

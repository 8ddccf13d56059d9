"""A configuration is its dataclass; a file and overrides change it, and every mistake is said with its place."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.config import as_dict, load, load_object, to_yaml
from trimtab.errors import ConfigError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Layer:
    width: int = 8
    bias: bool = True


@dataclass(frozen=True)
class Model:
    width: int = 64
    dropout: float = 0.1
    layers: tuple[int, ...] = (64, 64)
    first: Layer = field(default_factory=Layer)
    blocks: tuple[Layer, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Config:
    name: str = "run"
    rate: float = 1e-3
    steps: int = 100
    amp: bool = False
    clip: float | None = None
    optimizer: Literal["sgd", "adam", "on"] = "adam"
    colour: Colour = Colour.RED
    data: Path = Path("data")
    betas: tuple[float, float] = (0.9, 0.999)
    weights: Mapping[str, float] = field(default_factory=dict)
    anything: Any = None
    positive: Annotated[int, "a comment"] = 1
    model: Model = Model()
    teacher: Model | None = None
    made: int = field(default=0, init=False)

    def __post_init__(self):
        if self.steps < 0:
            raise ValueError(f"steps must not be negative, got {self.steps}")


@dataclass(frozen=True)
class Demanding:
    seed: int
    name: str
    rate: float = 0.1


def write(folder, text):
    path = folder / "conf.yaml"
    path.write_text(textwrap.dedent(text))
    return path


# --- what is accepted -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("rate=1e-3", {"rate": 0.001}),
        ("rate=.5", {"rate": 0.5}),
        ("rate=2", {"rate": 2.0}),
        ("rate=inf", {"rate": math.inf}),
        ("steps=1e4", {"steps": 10_000}),
        ("steps=1_000", {"steps": 1000}),
        ("name=hello=world", {"name": "hello=world"}),
        ("name=123", {"name": "123"}),
        ("name=true", {"name": "true"}),
        ("name=1e-3", {"name": "1e-3"}),
        ("name=", {"name": ""}),
        ("name=[a", {"name": "[a"}),
        ("amp=true", {"amp": True}),
        ("amp=no", {"amp": False}),
        ("amp=1", {"amp": True}),
        ("clip=1", {"clip": 1.0}),
        ("clip=null", {"clip": None}),
        ("optimizer=sgd", {"optimizer": "sgd"}),
        ("optimizer=on", {"optimizer": "on"}),
        ("colour=blue", {"colour": Colour.BLUE}),
        ("data=/tmp/x", {"data": Path("/tmp/x")}),
        ("betas=[0.8, 1]", {"betas": (0.8, 1.0)}),
        ("betas=0.8,1e-1", {"betas": (0.8, 0.1)}),
        ("weights.main=2", {"weights": {"main": 2.0}}),
        ("weights={main: 2, other: 1e-1}", {"weights": {"main": 2.0, "other": 0.1}}),
        ("anything={a: [1, x]}", {"anything": {"a": [1, "x"]}}),
        ("anything=1e-3", {"anything": 0.001}),
        ("positive=3", {"positive": 3}),
        ("model.width=128", {"model": Model(width=128)}),
        ("model.layers=32", {"model": Model(layers=(32,))}),
        ("model.layers=[]", {"model": Model(layers=())}),
        ("model.first.bias=off", {"model": Model(first=Layer(bias=False))}),
        ("model={width: 3, first: {width: 5}}", {"model": Model(width=3, first=Layer(width=5))}),
        ("model.blocks=[{width: 3}, {bias: false}]", {"model": Model(blocks=(Layer(width=3), Layer(bias=False)))}),
        ("teacher.width=3", {"teacher": Model(width=3)}),
        ("teacher={}", {"teacher": Model()}),
        (" rate =0.5", {"rate": 0.5}),
    ],
)
def test_an_override_is_read_as_the_type_of_its_setting(override, changes):
    found = load(Config, overrides=[override])
    assert found == Config(**changes)
    assert repr(found) == repr(Config(**changes))  # 1.0 is not 1


def test_without_a_file_and_overrides_the_defaults_stand():
    assert load(Config) == Config()
    mine = Config(rate=0.5)
    assert load(mine) is mine


def test_an_instance_gives_the_defaults_and_is_not_changed():
    mine = Config(rate=0.5, model=Model(width=3, dropout=0.7))
    assert load(mine, overrides=["model.width=9"]) == Config(rate=0.5, model=Model(width=9, dropout=0.7))
    assert mine.model.width == 3


def test_overrides_come_after_the_file_and_later_ones_win(tmp_path):
    path = write(
        tmp_path,
        """
        rate: 1e-2   # YAML 1.1 calls this a text
        steps: 7
        clip:
        name: 2020-01-01
        optimizer: on
        model:
          width: 3
          first: {bias: no}
          layers: [1, 2]
        weights: {a: 1, b: 2}
        """,
    )
    found = load(Config(clip=1.0), path, ["steps=8", "model.dropout=0.5", "weights.b=3", "steps=9"])
    assert found == Config(
        rate=0.01,
        steps=9,
        name="2020-01-01",
        optimizer="on",
        model=Model(width=3, dropout=0.5, first=Layer(bias=False), layers=(1, 2)),
        weights={"a": 1.0, "b": 3.0},
    )
    assert found.clip is None


def test_an_empty_file_and_an_empty_section_change_nothing(tmp_path):
    assert load(Config, write(tmp_path, "# nothing\n")) == Config()
    mine = Config(model=Model(width=3))
    assert load(mine, write(tmp_path, "model: {}\n")) == mine


def test_a_whole_section_can_be_taken_away_and_begun_again():
    mine = Config(teacher=Model(width=3))
    assert load(mine, overrides=["teacher=null"]).teacher is None
    assert load(mine, overrides=["teacher=null", "teacher.dropout=0"]).teacher == Model(dropout=0.0)


def test_values_without_a_default_may_come_from_anywhere(tmp_path):
    assert load(Demanding, write(tmp_path, "seed: 3\n"), ["name=x"]) == Demanding(3, "x")
    with pytest.raises(ConfigError, match=r"no value was given for seed, name; set it in the file or as seed=\.\.\."):
        load(Demanding)


# --- what is refused, and where -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rats=1", r"override 'rats=1': there is no setting 'rats'\. Did you mean 'rate'\? Known: name, rate, steps,"),
        (
            "model.widht=1",
            r"no setting 'model\.widht'\. Did you mean 'model\.width'\? Known: model\.width, model\.dropout",
        ),
        ("dropout=1", r"no setting 'dropout'\. Did you mean 'model\.dropout'\?"),
        ("made=1", "no setting 'made'"),
        ("rate.x=1", "'rate' is a float and has no settings of its own"),
        ("weights.a.b=1", r"'weights\.a' is a float and has no settings of its own"),
        ("rate=fast", r"override 'rate=fast': 'rate' expects float, got 'fast' \(str\): .*valid number"),
        ("steps=1.5", r"'steps' expects int, got 1\.5 \(float\)"),
        ("steps=true", r"'steps' expects int, got True \(bool\): a yes-or-no is no number"),
        ("betas=[true, 1]", "'betas' expects .*: a yes-or-no is no number"),
        ("betas=[1]", r"'betas' expects tuple\[float, float\], got \[1\] \(list\)"),
        ("betas=[1, x]", r"'betas' expects .*at 1: .*valid number"),
        ("amp=maybe", "'amp' expects a yes or no"),
        ("optimizer=lion", r"'optimizer' expects Literal\['sgd', 'adam', 'on'\], got 'lion'"),
        ("colour=green", r"'colour' expects Colour, got 'green' \(str\)"),
        ("clip=low", r"'clip' expects float \| None, got 'low'"),
        ("model=3", "'model' expects Model, got 3"),
        ("model.blocks=[{}, {widht: 3}]", r"no setting 'model\.blocks\.1\.widht'\. Did you mean '.*\.1\.width'"),
        ("model.blocks=[{width: x}]", r"'model\.blocks\.0\.width' expects int, got 'x'"),
        ("model.blocks=[3]", r"'model\.blocks' expects tuple\[Layer, \.\.\.\]"),
        ("rate", "override 'rate': expected key=value, such as model.width=128"),
        ("=3", "expected key=value"),
        ("steps=-1", r"Config with override 'steps=-1': steps must not be negative, got -1"),
    ],
)
def test_a_wrong_override_says_what_was_expected_and_what_came(override, message):
    with pytest.raises(ConfigError, match=message):
        load(Config, overrides=[override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 1\nmodle:\n  width: 3\n", r"conf\.yaml line 3: there is no setting 'modle'\. Did you mean 'model'\?"),
        ("model:\n  widht: 3\n", r"conf\.yaml line 2: there is no setting 'model\.widht'"),
        ("rate: fast\n", r"conf\.yaml line 1: 'rate' expects float, got 'fast'"),
        ("steps: yes\n", r"conf\.yaml line 1: 'steps' expects int, got True"),
        ("name:\n", r"conf\.yaml line 1: 'name' expects str, got None"),
        ("rate: 1\nrate: 2\n", r"conf\.yaml line 2: 'rate' stands in line 1 already; keep one"),
        ("model.width: 3\n", "expected the name of one setting, got 'model.width'; nest the mappings"),
        ("3: 3\n", "expected the name of one setting, got 3"),
        ("- rate\n", r"conf\.yaml: expected a mapping of settings, got a list"),
        ("rate: [1\n", r"conf\.yaml line 2 is no plain YAML"),
        ("rate: !!python/object/apply:os.getcwd []\n", "line 1 is no plain YAML: could not determine a constructor"),
    ],
)
def test_a_wrong_file_says_the_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(Config, write(tmp_path, text))


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read .*No such file"):
        load(Config, tmp_path / "absent.yaml")


def test_something_else_than_a_dataclass_is_refused():
    with pytest.raises(ConfigError, match="expected a dataclass or an instance of one as configuration, got"):
        load({"rate": 1})


def test_a_type_that_no_text_can_be_is_refused_only_when_it_is_set():
    @dataclass(frozen=True)
    class Odd:
        call: object = None
        rate: float = 1.0

    class Opaque:
        pass

    Odd.__annotations__["call"] = Opaque
    assert load(Odd, overrides=["rate=2"]) == Odd(rate=2.0)
    with pytest.raises(ConfigError, match="'call' is a Opaque, which cannot be written as text; set it in Python"):
        load(Odd, overrides=["call=3"])


def test_an_annotation_that_does_not_exist_is_named():
    @dataclass(frozen=True)
    class Unresolved:
        rate: "Nowhere" = 1.0  # type: ignore[name-defined] # noqa: F821 - this is what is tested

    with pytest.raises(ConfigError, match=r"Unresolved: .*'Nowhere' is not defined.*import it outside TYPE_CHECKING"):
        load(Unresolved, overrides=["rate=2"])


# --- there and back -------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"]), max_size=8) | st.sampled_from(
    ["1e-3", "on", "null", "~", "2020-01-01", "0x1f", "1:30", "", " a", "- a", "#", "NaN", ".nan", "é: [", "1e5"]
)
FLOATS = st.floats(allow_nan=False)


@given(
    st.builds(
        Config,
        name=TEXTS,
        rate=FLOATS,
        steps=st.integers(0, 10**20),
        amp=st.booleans(),
        clip=st.none() | FLOATS,
        optimizer=st.sampled_from(["sgd", "adam", "on"]),
        colour=st.sampled_from(Colour),
        betas=st.tuples(FLOATS, FLOATS),
        weights=st.dictionaries(st.sampled_from(["a", "b c", "é"]), FLOATS, max_size=2),
        model=st.builds(Model, width=st.integers(), layers=st.lists(st.integers(), max_size=3).map(tuple)),
        teacher=st.none() | st.builds(Model, blocks=st.lists(st.builds(Layer), max_size=2).map(tuple)),
    )
)
def test_yaml_reads_back_as_what_it_was(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("yaml") / "conf.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert repr(load(Config, path)) == repr(config)


def test_a_configuration_becomes_plain_values():
    plain = as_dict(Config(colour=Colour.BLUE, weights={"a": 1.0}, teacher=Model(blocks=(Layer(),)), anything={2, 1}))
    assert list(plain) == [entry.name for entry in dataclasses.fields(Config) if entry.init]
    assert (plain["colour"], plain["data"], plain["betas"], plain["anything"]) == ("blue", "data", [0.9, 0.999], [1, 2])
    assert plain["teacher"]["blocks"] == [{"width": 8, "bias": True}]


# --- objects of other packages --------------------------------------------------------------------


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A package with a class, an object, a class that needs an argument, and a module that breaks."""
    (tmp_path / "my_plugins").mkdir()
    (tmp_path / "my_plugins" / "__init__.py").write_text("")
    (tmp_path / "my_plugins" / "detectors.py").write_text(
        "class Mine:\n    limit = 3\n    class Inner: pass\nmine = Mine()\n\n"
        "class Needy:\n    def __init__(self, limit): pass\n"
    )
    (tmp_path / "my_plugins" / "broken.py").write_text("raise RuntimeError('no licence')\n")
    (tmp_path / "my_plugins" / "wants.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("plugins")
def test_a_class_is_made_and_an_object_is_taken():
    assert load_object("my_plugins.detectors:Mine").limit == 3
    assert load_object("my_plugins.detectors:mine") is load_object("my_plugins.detectors:mine")
    assert type(load_object("my_plugins.detectors:Mine.Inner")).__name__ == "Inner"


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_plugins.detectors", r"expected the form 'package\.module:Name'"),
        ("my_plugins.detectors:", "expected the form"),
        (":Mine", "expected the form"),
        ("my plugins:Mine", "expected the form"),
        ("my_plugins.sensors:Mine", r"there is no module 'my_plugins\.sensors'; install the package"),
        ("surely_not_there.detectors:Mine", "there is no module 'surely_not_there'"),
        ("my_plugins.wants:Mine", r"importing my_plugins\.wants failed: No module named 'surely_not_installed'"),
        ("my_plugins.broken:Mine", r"importing my_plugins\.broken failed: RuntimeError: no licence"),
        ("my_plugins.detectors:Mien", r"my_plugins\.detectors has no 'Mien'\. Did you mean 'Mine'\?"),
        ("my_plugins.detectors:Needy", r"making one without arguments failed: TypeError: .*'limit'"),
    ],
)
def test_a_name_that_leads_nowhere_says_why(name, message):
    with pytest.raises(ConfigError, match=message):
        load_object(name)

"""Every key of the write-up's configuration file is honoured, mapped, or has a reason to be without effect."""

from pathlib import Path

import pytest

from trimtab.errors import ConfigError
from trimtab_systems.sci.write_up.config import WriteUpConfig
from trimtab_systems.sci.write_up.yaml_keys import ALL_KEYS, FILE, KEYS, fates, load, main


def test_the_file_has_every_key_once_and_each_has_a_fate():
    rows = fates()
    assert [name for name, *_ in rows] == list(KEYS)
    assert all(text for _, _, _, text in rows)
    assert all(KEYS[name].because for name, _, fate, _ in rows if fate != "honoured")


def test_the_written_values_arrive():
    config = load()
    assert config.profile == "as_written"
    assert (config.base_lr, config.sci_lr, config.batch, config.accumulate) == (2e-5, 5e-5, 8, 4)
    assert (config.width, config.heads, config.binding_heads, config.slots) == (768, 8, 8, 8)
    assert config.width // config.heads == 96
    assert (config.rotary_width, config.edge_dim, config.mlp_ratio) == (64, 64, 4)
    assert (config.epochs, config.patience, config.min_delta) == (20, 5, 0.001)
    assert config.length_phases == ((0, 20), (3, 50), (8, 88))
    assert config.generation.max_new_tokens == 300
    assert config.validation == "carved"


def given(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_key_of_a_file_wins_over_the_write_up_and_the_rest_stays(tmp_path: Path):
    config = load(given(tmp_path, "training:\n  base_lr: 1.0e-3\nevaluation:\n  num_beams: 4\n"))
    assert (config.base_lr, config.generation.num_beams) == (1e-3, 4)
    assert (config.width, config.epochs) == (768, 20)
    assert config.temperature_form == "clamp"


def test_a_file_can_be_laid_over_other_settings(tmp_path: Path):
    start = WriteUpConfig(width=64, epochs=30)
    config = load(given(tmp_path, "sci:\n  cbm:\n    num_iterations: 2\n"), start)
    assert (config.width, config.epochs, config.binding_iterations, config.profile) == (64, 30, 2, "from_scratch")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training:\n  bsae_lr: 1\n", "line 2.*no key 'training.bsae_lr'. Did you mean 'training.base_lr'"),
        ("training:\n  num_epochs: many\n", "'epochs' expects int, got 'many'"),
        ("training:\n  optimizer: sgd\n", "only 'adamw' has a meaning here"),
        ("sci:\n  injection_layers: [1, 2]\n", r"only \[3, 6, 9\] has a meaning here"),
        ("model:\n  base_model: gpt2\n", "base_model"),
        ("training:\n  early_stopping:\n    metric: test_exact_match\n", "val_exact_match"),
        ("model:\n  positional_encoding:\n    type: sinusoidal\n", "sinusoidal"),
        ("- 1\n", "mapping"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_place(tmp_path: Path, text: str, said: str):
    with pytest.raises(ConfigError, match=said):
        load(given(tmp_path, text))


def test_the_command_prints_one_line_a_key(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(KEYS)
    assert "honoured: base_lr=2e-05" in next(line for line in lines if line.startswith("training.base_lr"))
    assert main([str(given(tmp_path, "nothing: 1\n"))]) == 2
    assert "no key 'nothing'" in capsys.readouterr().err
    assert FILE.exists()


def test_the_blocks_of_the_sections_are_known_too(tmp_path: Path):
    text = """
structural_encoder:
  gnn: {num_layers: 3, edge_dim: 16}
learning_rate:
  component_lr_multipliers: {slot_queries: 0.25}
anti_collapse_measures:
  loss_spike_detection: {action: skip}
  slot_diversity: {enabled: false, weight: 0.5}
curriculum_learning:
  length_curriculum:
    phase1: {epochs: [0, 4], max_output_length: 10}
    phase2: {epochs: [4, 8], max_output_length: 40}
  structure_curriculum:
    phase3: {epochs: [15, 20], max_clauses: null}
eos_training:
  generation: {max_length_buffer: 10}
"""
    config = load(given(tmp_path, text))
    assert (config.gnn_layers, config.edge_dim, config.slot_queries_rate) == (3, 16, 0.25)
    assert (config.spike_action, config.slot_diversity_weight) == ("skip", 0.0)
    assert config.length_phases == ((0, 10), (4, 40), (8, 88))
    assert config.structure_phases == ((0, 2), (5, 4), (15, 6))
    assert config.generation.limit == 58


def test_a_synonym_and_a_short_limit_stay_refused(tmp_path: Path):
    above = "data_augmentation:\n  structure_augmentation:\n    structure_synonyms: {enabled: true}\n"
    with pytest.raises(ConfigError, match="structure_synonyms"):
        load(given(tmp_path, above))
    with pytest.raises(ConfigError, match="max_length_buffer"):
        load(given(tmp_path, "eos_training:\n  generation: {max_length_buffer: -3}\n"))


def test_every_key_names_settings_that_there_are():
    for name, key in ALL_KEYS.items():
        values = key.allowed or ([0, 5], 1)
        for value in values:
            try:
                found = key.settings(value)
            except TypeError:
                continue
            for setting in found:
                whole = setting.split("/")[0]
                holder: object = WriteUpConfig()
                for part in whole.split("."):
                    assert hasattr(holder, part), f"{name}: {setting}"
                    holder = getattr(holder, part)

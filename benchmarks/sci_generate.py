"""How fast answers are written, beside `transformers` on the same model: `python -m benchmarks.sci_generate`.

The model is a T5 of `transformers`, 3 + 3 layers of width 128, trained here on the split `simple` until its answers
have about the lengths that they should have. It then answers all 3,920 test commands of the split `length`, greedily:
once by its own `generate`, once by `T5Decoder` and `generate` of the system `sci`, which must answer the same. Both get
the commands sorted by length and the batch size that is best for them, found beforehand on a quarter of the commands.

Seconds are CPU seconds of the process, on one thread; making the T5Decoder is part of ours. A round is one run of
both, in changing order; the speed-up of a round is the ratio of its two runs. The interval is Student's t over the
logarithms of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch and numpy when they are imported

import scipy.stats
import torch
import torch.nn.functional as F
from transformers import T5Config, T5ForConditionalGeneration

from benchmarks.stored import store
from trimtab.batches import Batches
from trimtab_systems.sci.data import (
    ACTIONS,
    BOS,
    EOS,
    FIRST_ACTION,
    OUTPUT,
    PAD,
    WORDS,
    encode,
    open_test,
    targets,
    train_of,
)
from trimtab_systems.sci.write_up.generate import LONGEST_OUTPUT, Generation, generate
from trimtab_systems.sci.write_up.t5_decoder import T5Decoder

COMMAND = "python -m benchmarks.sci_generate"
FIRST_SYMBOL = len(WORDS) + 1
"""Number that the T5 has for symbol 0 of `OUTPUT`; its numbers before are padding and words."""
LIMIT = LONGEST_OUTPUT + 1
"""Symbols written at most, by both: the longest answer and its end."""
BATCHES = {"theirs": (64, 128, 256, 512, 1024), "ours": (64, 128, 256, 512)}
"""Sizes among which the best is looked for."""
BAR = 5.0

Answers = list[tuple[int, ...]]


def trained(updates: int, width: int, seed: int) -> Any:
    """Return a T5 that has learned SCAN for so many updates of 64 examples."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=FIRST_SYMBOL + len(OUTPUT),
        d_model=width,
        d_kv=width // 4,
        d_ff=4 * width,
        num_layers=3,
        num_decoder_layers=3,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=FIRST_SYMBOL + EOS,
    )
    config.decoder_start_token_id = FIRST_SYMBOL + BOS
    model: Any = T5ForConditionalGeneration(config)
    encoded = encode(train_of("simple", seed))
    batches = Batches((encoded.words_BN, *targets(encoded)), 64, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=updates, pct_start=0.1)
    for _ in range(updates):
        words_BN, inputs_BT, labels_BT = next(batches)
        logits_BTV = model(
            input_ids=words_BN,
            attention_mask=(words_BN != 0).long(),
            decoder_input_ids=inputs_BT + FIRST_SYMBOL,
            use_cache=False,
        ).logits[..., FIRST_SYMBOL:]
        F.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=PAD).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()
    return model


def theirs(model: Any, words_BN: torch.Tensor, batch: int) -> Answers:
    """Return the answers of the T5's own `generate`; the commands are sorted by length first."""
    answers: Answers = [()] * len(words_BN)
    lengths_B = (words_BN != 0).sum(1)
    with torch.inference_mode():
        for rows_B in lengths_B.argsort(stable=True).split(batch):
            part_BN = words_BN[rows_B, : int(lengths_B[rows_B].max())]
            written_BT = model.generate(
                part_BN, attention_mask=(part_BN != 0).long(), do_sample=False, num_beams=1, max_new_tokens=LIMIT
            )
            for row, numbers in zip(rows_B.tolist(), written_BT[:, 1:].tolist(), strict=True):
                symbols = [number - FIRST_SYMBOL for number in numbers]
                end = symbols.index(EOS) if EOS in symbols else len(symbols)
                answers[row] = tuple(symbol - FIRST_ACTION for symbol in symbols[:end])
    return answers


def ours(model: Any, words_BN: torch.Tensor, batch: int) -> Answers:
    """Return the answers of the system's `generate`."""
    symbols = range(FIRST_SYMBOL, FIRST_SYMBOL + len(OUTPUT))
    decoder = T5Decoder(model, range(FIRST_SYMBOL), symbols, limit=LIMIT)
    return generate(decoder, words_BN, Generation(eos_threshold=None, max_new_tokens=LIMIT, batch=batch))


ARMS: dict[str, Callable[[Any, torch.Tensor, int], Answers]] = {"theirs": theirs, "ours": ours}


def timed(arm: str, model: Any, words_BN: torch.Tensor, batch: int) -> tuple[float, Answers]:
    """Return CPU seconds and answers of one run."""
    began = time.process_time()
    answers = ARMS[arm](model, words_BN, batch)
    return time.process_time() - began, answers


def best_batches(model: Any, words_BN: torch.Tensor) -> tuple[dict[str, int], dict[str, dict[str, float]]]:
    """Return the best batch size of each arm, and the seconds of all."""
    seconds = {
        arm: {str(batch): timed(arm, model, words_BN, batch)[0] for batch in sizes} for arm, sizes in BATCHES.items()
    }
    return {arm: int(min(found, key=lambda size: found[size])) for arm, found in seconds.items()}, seconds


def main() -> None:
    """Train, find the batch sizes, take the rounds, and store the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="runs of each arm")
    parser.add_argument("--updates", type=int, default=800, help="of the training beforehand")
    parser.add_argument("--width", type=int, default=128, help="of the T5")
    parser.add_argument("--commands", type=int, default=3920, help="how many are answered; all for a result")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = trained(given.updates, given.width, seed=0)
    examples = open_test("length")[:: max(3920 // given.commands, 1)]
    words_BN = encode(examples).words_BN
    timed("theirs", model, words_BN[:8], 8)  # the first call of a process imports much
    sizes, tried = best_batches(model, words_BN[::4])
    print(sizes, tried, flush=True)
    rows = []
    for number in range(given.rounds):
        found = {arm: timed(arm, model, words_BN, sizes[arm]) for arm in sorted(ARMS, reverse=bool(number % 2))}
        row = {f"{arm}_cpu_seconds": seconds for arm, (seconds, _) in found.items()}
        row["speedup"] = row["theirs_cpu_seconds"] / row["ours_cpu_seconds"]
        row["equal"] = statistics.mean(
            one == two for one, two in zip(found["theirs"][1], found["ours"][1], strict=True)
        )
        rows.append(row)
        print({name: round(value, 4) for name, value in row.items()}, flush=True)
    answers = found["ours"][1]
    truth = [tuple(ACTIONS.index(action) for action in example.actions) for example in examples]
    logs = [math.log(row["speedup"]) for row in rows]
    half = scipy.stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    figures = {
        "generate_speedup": statistics.median(row["speedup"] for row in rows),
        "generate_speedup_low": math.exp(statistics.mean(logs) - half),
        "generate_speedup_high": math.exp(statistics.mean(logs) + half),
        "answers_equal_min": min(row["equal"] for row in rows),
        "ours_cpu_seconds_median": statistics.median(row["ours_cpu_seconds"] for row in rows),
        "theirs_cpu_seconds_median": statistics.median(row["theirs_cpu_seconds"] for row in rows),
        "commands": len(answers),
        "symbols_mean": statistics.mean(len(answer) + 1 for answer in answers),
        "symbols_mean_of_truth": statistics.mean(len(answer) + 1 for answer in truth),
        "rounds": len(rows),
    }
    for name, value in figures.items():
        print(f"{name:28} {value:.6g}")
    if len(answers) < 3920:
        return
    detail = {
        "model": {"width": given.width, "layers": 3, "heads": 4, "updates": given.updates},
        "exact_match": statistics.mean(one == two for one, two in zip(answers, truth, strict=True)),
        "batch": sizes,
        "seconds_on_a_quarter": tried,
        "rounds": rows,
        "reached": figures["generate_speedup_low"] >= BAR,
    }
    store("sci_generate", command=COMMAND, seeds=[0], figures=figures, detail=detail)


if __name__ == "__main__":
    main()

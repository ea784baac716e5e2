"""Runs the fused kernel's source under Triton's interpreter; one JSON line per case.

Started by test_plar_triton.py in a process of its own: TRITON_INTERPRET must be set before the
kernel is imported.
"""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

from dataclasses import replace

import torch
from plar_cases import Problem, largest_error, make_problem, pairwise_cases, wrong_decisions

from geohsal.kernels.plar import PlarScores, Rule, reference_scores, triton_path
from geohsal.kernels.plar.decision import Settings
from geohsal.kernels.plar.rounding import round_operands


def poisoned(pixels: int, device: torch.device) -> PlarScores:
    """Outputs full of wrong values: whatever the kernel leaves out shows."""
    scores = _empty(pixels, device)
    for column in scores:
        column.fill_(77 if column.dtype is torch.uint8 else True)
    return scores


_empty = triton_path._empty_scores
triton_path._empty_scores = poisoned


def report(name: str, problem: Problem, rule: Rule = Rule.ROBUST, agreement: bool = True) -> None:
    """Compare the kernel with the reference and print what differs."""
    rounded = round_operands(problem.operands, torch.float16)
    packed = triton_path.pack(problem.operands, rounded).tensors()
    inputs = (problem.features, problem.pseudo, problem.operands)
    settings = Settings(rule, agreement, 1e-4)
    raw = triton_path.raw_scores(*inputs, packed, scale=rounded.scale, settings=settings)
    full = triton_path.fused_scores(*inputs, packed, scale=rounded.scale, settings=settings)
    wanted = reference_scores(*inputs, rule=rule, agreement=agreement)
    wrong = wrong_decisions(raw, wanted)
    far = wanted.mahalanobis > 0.1 * problem.operands.bias.shape[2]
    line = {
        "case": name,
        "outside": int((wrong & ~raw.near_tie).sum()),
        "flagged": float(raw.near_tie.float().mean()),
        "wrong": int(wrong_decisions(full, wanted).sum()),
        "mahalanobis": largest_error(raw.mahalanobis[far], wanted.mahalanobis[far]),
        "euclid": largest_error(raw.euclid, wanted.euclid),
        "classes": int(((raw.q_class != wanted.q_class).any(1) & ~raw.near_tie).sum())
        + int(((raw.euclid_class[:, 0] != wanted.euclid_class[:, 0]) & ~raw.near_tie).sum()),
        "codes": sorted(set(wanted.code.tolist())),
    }
    sys.stdout.write(json.dumps(line) + "\n")


def special_cases() -> None:
    """Rows, layouts and operands that random cases do not have."""
    base = make_problem(150, classes=5, gate=torch.full((5,), 9.0))
    broken = base.features.clone()
    broken[3, 0], broken[7, 2], broken[9, 1], broken[11] = torch.nan, torch.inf, -torch.inf, 7e4
    report("impossible rows", Problem(**_with(base, features=broken)))
    report("columns apart", Problem(**_with(base, features=base.features.T.contiguous().T)))
    every_second = torch.stack([base.features, base.features]).permute(1, 0, 2)[:, 0]
    report("rows apart", Problem(**_with(base, features=every_second)))
    flags = torch.ones(5, dtype=torch.bool)
    operands = replace(
        base.operands,
        log_prior=torch.tensor([-torch.inf, 0, 0, -torch.inf, 0]),
        gated=flags.clone().index_fill(0, torch.tensor([1]), False),
        support=flags.clone().index_fill(0, torch.tensor([2]), False),
        abstain=~flags.clone().index_fill(0, torch.tensor([4]), False),
    )
    for rule in Rule:
        report(f"flags {rule.name}", Problem(**_with(base, operands=operands)), rule)
    absent = replace(base.operands, log_prior=torch.full((5,), -torch.inf))
    report("no class known", Problem(**_with(base, operands=absent)))
    open_gates = replace(base.operands, gate=torch.full((5,), torch.inf))
    report("open gates", Problem(**_with(base, operands=open_gates)))
    copies = [0, 1, 2, 0, 1]
    names = ("center", "projection")
    doubled = {k: v[copies] for k, v in base.operands.tensors().items() if k not in names}
    report("exact ties", Problem(**_with(base, operands=replace(base.operands, **doubled))))
    triton_path._SCRATCH_BYTES = 12 * 32 * 128  # one block of pixels at a time
    report("chunks", base)


def _with(problem: Problem, **changes: object) -> dict[str, object]:
    values = {"operands": problem.operands, "features": problem.features, "pseudo": problem.pseudo}
    return values | changes


if __name__ == "__main__":
    if sys.argv[1] == "special":
        special_cases()
    else:
        for case in pairwise_cases():
            report(str(tuple(case)), case.make(), case.rule, case.agreement)

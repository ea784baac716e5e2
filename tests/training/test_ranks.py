"""Work that is shared out and merged gives what one process gives."""

import copy

import numpy as np
import pytest
import torch
from rank_factory import each_rank
from torch import nn

from geohsal.config import config_from_dict
from geohsal.config.launch import Launch
from geohsal.data.augment import UnlabelledView
from geohsal.errors import DataError, LostError, QuietError, RequestError
from geohsal.geo.states import IGNORE_INDEX
from geohsal.training import ranks as module
from geohsal.training.crops import check_shares
from geohsal.training.losses import supervised_loss, weighted_pseudo_loss
from geohsal.training.norms import average, running_statistics
from geohsal.training.part import PartSums
from geohsal.training.pseudo_labels import Streams
from geohsal.training.ranks import ALONE, Ranks, joined
from geohsal.training.shares import count_pixels


@pytest.mark.parametrize("world", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_results_of_shares_come_back_in_order(world: int, count: int) -> None:
    things = list(range(count))
    found = each_rank(world, lambda ranks: ranks.merge([n * n for n in ranks.share(things)]))
    assert found == [[n * n for n in things]] * world


def test_alone_nothing_is_sent() -> None:
    with joined(Launch(), cuda=lambda: pytest.fail("asked")) as ranks:
        assert ranks is ALONE
    assert ALONE.gather("x") == ["x"]
    assert ALONE.largest(3) == 3
    values = torch.ones(2)
    assert torch.equal(ALONE.total(values), values)


def test_a_failure_anywhere_is_a_failure_everywhere_and_said_once() -> None:
    def work(ranks: Ranks) -> str:
        def one() -> None:
            if ranks.rank > 0:
                raise DataError(f"disk {ranks.rank}")

        try:
            ranks.together(one)
        except QuietError as error:
            return f"quiet {error.code}"
        except DataError as error:
            return str(error)
        return "nothing"

    assert each_rank(3, work) == ["process 1 of 3: disk 1", "quiet 3", "quiet 3"]


class Store(dict[str, bytes]):
    """What the processes share, without sockets; `gone` with the process that keeps it."""

    gone = False

    def check(self, keys: list[str]) -> bool:
        if self.gone:
            raise torch.distributed.DistNetworkError("Connection reset by peer")
        return all(key in self for key in keys)

    def set(self, key: str, value: str) -> None:
        self[key] = value.encode()


@pytest.mark.parametrize("rank", [0, 1])
def test_after_a_loss_without_a_word_the_same_command_may_start_again(rank: int) -> None:
    launch = Launch(by="srun", rank=rank, world=2)
    reason = RuntimeError("[gloo/transport/tcp/pair.cc:547]\nConnection closed by peer")
    error = module._lost(reason, launch, Store())
    assert isinstance(error, LostError if rank == 0 else QuietError)
    assert getattr(error, "code", error.exit_code) == 75
    assert "(" + " ".join(str(reason).split()) + ")" in str(error)


def test_where_the_first_process_is_gone_its_exit_code_is_the_largest() -> None:
    store = Store()
    store.gone = True
    error = module._lost(RuntimeError("lost"), Launch(by="srun", rank=1, world=2), store)
    assert isinstance(error, QuietError)
    assert error.code == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_after_an_error_that_was_said_all_end_with_its_code(rank: int) -> None:
    store = Store()
    others = Launch(by="srun", rank=1 - rank, world=2)
    module._mine(RequestError("no such thing"), others, store)
    error = module._lost(RuntimeError("lost"), Launch(by="srun", rank=rank, world=2), store)
    assert isinstance(error, QuietError)
    assert error.code == 2


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Crops of one step; their labelled and counted pixels differ much."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(5, 3, 8, 8, generator=generator)
    labels = torch.randint(4, (5, 8, 8), generator=generator)
    labels[0] = IGNORE_INDEX
    labels[1, 2:] = IGNORE_INDEX
    counted = torch.rand(5, 8, 8, generator=generator) < 0.5
    counted[4] = False
    return image, labels, counted


def streams(target: torch.Tensor, counted: torch.Tensor) -> Streams:
    """One view whose every counted pixel is believed."""
    some = counted.float()
    view = UnlabelledView(
        image=some[:, None],
        target=target,
        weight=some,
        friend_target=target,
        friend_weight=some,
        student_target=target,
        student_weight=some,
        state=target,
        counted=counted,
        valid=counted,
    )
    return Streams(views=(view,), shares=(1.0,), perturbed=0)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_the_mean_gradient_is_that_of_the_whole_batch(world: int) -> None:
    image, labels, counted = batch()
    network = nn.Conv2d(3, 4, 1)

    def gradient(ranks: Ranks) -> torch.Tensor:
        share = ranks.share(range(5))
        own = slice(share[0], share[-1] + 1)
        mine = copy.deepcopy(network)
        logits = mine(image[own])
        seen = streams(labels[own].clamp_max(3), counted[own])
        nothing = torch.full_like(labels[own], IGNORE_INDEX)
        counts = count_pixels(ranks, labels=labels[own], withheld=nothing, streams=seen)
        view = seen.first
        loss = supervised_loss(logits, labels[own], count=counts.labelled)
        loss = loss + weighted_pseudo_loss(
            logits, view.target, view.weight, view.counted, count=counts.views[0]
        )
        loss.backward()
        assert mine.weight.grad is not None
        return mine.weight.grad

    whole = gradient(ALONE)
    mean = torch.stack(each_rank(world, gradient)).mean(dim=0)
    torch.testing.assert_close(mean, whole, rtol=1e-5, atol=1e-6)


def test_the_error_mask_learns_from_those_that_hold_withheld_pixels() -> None:
    labels = torch.full((1, 2, 2), 255)
    holds = torch.zeros_like(labels)

    def scale(ranks: Ranks) -> float:
        withheld = holds if ranks.rank == 1 else labels
        counts = count_pixels(ranks, labels=labels, withheld=withheld, streams=None)
        return float(counts.error_scale)

    assert each_rank(3, scale) == [3.0, 3.0, 3.0]


def test_running_statistics_become_their_mean_and_group_norms_have_none() -> None:
    def work(ranks: Ranks) -> list[torch.Tensor]:
        network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.GroupNorm(1, 2))
        buffers = running_statistics(network, None)
        for buffer in buffers:
            buffer.fill_(float(ranks.rank))
        average(buffers, ranks)
        return [network[1].running_mean, network[1].running_var]

    for found in each_rank(4, work):
        assert len(found) == 2
        for buffer in found:
            assert torch.equal(buffer, torch.full((2,), 1.5))


def test_sums_of_a_part_survive_a_change_of_processes() -> None:
    def begin(ranks: Ranks) -> dict[str, object]:
        sums = PartSums(ranks)
        sums.add({"loss": torch.tensor(1.0 + ranks.rank), "rare": torch.tensor(4.0)})
        return sums.to_state()

    states = each_rank(2, begin)

    def go_on(ranks: Ranks) -> dict[str, float]:
        sums = PartSums(ranks)
        held = states if ranks.rank == 0 else []
        sums.load(held, scale=ranks.world / 2)
        sums.add({"loss": torch.tensor(2.5)})
        return sums.means(2)

    for world in (1, 3):
        for found in each_rank(world, go_on):
            assert found == {"loss": pytest.approx(2.0), "rare": pytest.approx(2.0)}


def test_more_processes_than_crops_are_refused_and_too_few_to_mix_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = config_from_dict({"train": {"batch_labelled": 3, "batch_unlabelled": 3}}, where="test")

    def of(world: int) -> Ranks:
        return Ranks(launch=Launch(by="srun", world=world))

    with pytest.raises(RequestError, match=r"train\.batch_labelled is 3.* 4 processes train"):
        check_shares(config, round_index=0, ranks=of(4))
    check_shares(config, round_index=0, ranks=ALONE)
    assert not caplog.records
    check_shares(config, round_index=0, ranks=of(2))
    assert "single crop" in caplog.text


def test_empty_shares_merge_as_arrays() -> None:
    def work(ranks: Ranks) -> int:
        own = [np.full((n, 2), n) for n in ranks.share([3])]
        return len(np.concatenate([np.zeros((0, 2)), *ranks.merge(own)]))

    assert each_rank(4, work) == [3, 3, 3, 3]

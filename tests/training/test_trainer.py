"""What is used of Lightning beside its public face."""

import inspect
import logging
import warnings

import lightning as L
import pytest
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from geohsal.training.trainer import quiet_lightning


def test_lightning_has_what_is_used_of_it() -> None:
    assert list(inspect.signature(_SignalConnector.register_signal_handlers).parameters) == ["self"]
    assert "weights_only" in inspect.signature(L.Trainer.fit).parameters
    with quiet_lightning():
        assert "_signal_connector" in vars(L.Trainer(logger=False, enable_checkpointing=False))


@pytest.mark.parametrize(
    "message",
    [
        "Consider setting `persistent_workers=True` in 'train_dataloader' to speed up",
        "Detected call of `lr_scheduler.step()` before `optimizer.step()`.",
    ],
)
def test_what_is_meant_to_be_so_is_not_warned_of(message: str) -> None:
    with quiet_lightning():
        warnings.warn(message, stacklevel=1)
    assert logging.getLogger("lightning.pytorch").level != logging.ERROR

"""The real command line and settings that train in seconds."""

from click.testing import CliRunner, Result

from geohsal.cli.main import cli

TINY_SETTINGS = """
seed: 0
tile: {core_px: 96, overlap_px: 16}
model: {arch: unet, encoder: tu-resnet10t, encoder_depth: 3, decoder_channels: 8,
        pixel_channels: 8, window_px: 96, window_overlap_px: 16}
train: {steps: 12, crop_px: 32, batch_labelled: 3, batch_unlabelled: 2, optimizer: adamw,
        lr: 0.003, checkpoints: 3, loader_workers: 0}
augment: {scale: [0.8, 1.25]}
ssl: {friend: head, ema_max: 0.8}
emd: {channels: 8}
"""


def geohsal(*arguments: object, code: int = 0) -> Result:
    """Run the command line in this process; the exit code must be `code`."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result

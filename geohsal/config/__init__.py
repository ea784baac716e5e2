"""Settings: frozen sections, checked where YAML enters; no torch here."""

from geohsal.config.asking import CostConfig, OutputConfig, QueryConfig, StopConfig
from geohsal.config.fields import BUDGET_PATTERN, BUDGETS
from geohsal.config.learning import AugmentConfig, SslConfig, TrainConfig
from geohsal.config.loading import (
    FORMAT_VERSION,
    PRESETS,
    Config,
    config_from_dict,
    config_schema,
    config_to_dict,
    explain,
    known_keys,
    load_config,
    parse_yaml_mapping,
    preset_text,
)
from geohsal.config.network import ModelConfig, TileConfig
from geohsal.config.refinement import EmdConfig, PlarConfig, PriorConfig

__all__ = [
    "BUDGETS",
    "BUDGET_PATTERN",
    "FORMAT_VERSION",
    "PRESETS",
    "AugmentConfig",
    "Config",
    "CostConfig",
    "EmdConfig",
    "ModelConfig",
    "OutputConfig",
    "PlarConfig",
    "PriorConfig",
    "QueryConfig",
    "SslConfig",
    "StopConfig",
    "TileConfig",
    "TrainConfig",
    "config_from_dict",
    "config_schema",
    "config_to_dict",
    "explain",
    "known_keys",
    "load_config",
    "parse_yaml_mapping",
    "preset_text",
]

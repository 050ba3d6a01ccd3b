"""The settings: the only reader of the environment. One table in the README is generated from this class."""

from ..setting_values import SettingsError as SettingsError
from .identity import MIN_SECRET_BYTES as MIN_SECRET_BYTES
from .source import Environment as Environment
from .vendors import vendor_fields as vendor_fields
from .whole import Settings as Settings
from .whole import load_settings as load_settings

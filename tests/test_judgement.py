"""Models that fit and do not go together get a line each; those that do, none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import breadcrumbs
from breadcrumbs.checkpoint.safetensors import write_safetensors
from breadcrumbs.cli import main
from breadcrumbs.errors import MismatchError

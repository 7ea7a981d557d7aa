"""Imports the product with a mistake in it: the source is changed on its way to the compiler, never on disk.

Only for processes of their own (``child``): what was imported before stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

from .mistake import Edit, changed


class _ChangingLoader(SourceFileLoader):
    """Compiles the changed source; knows no cached bytecode."""

    def __init__(self, name: str, path: str, edits: Sequence[Edit], loaded: set[str]) -> None:
        super().__init__(name, path)
        self._edits = edits
        self._loaded = loaded

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        for edit in self._edits:
            source = changed(source, edit)
        self._loaded.add(fullname)
        code = compile(source, self.path, "exec", dont_inherit=True)
        assert isinstance(code, CodeType)
        return code


class Changes(MetaPathFinder):
    """Finds the modules that are to be changed, before anybody else does."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = edits
        self._loaded: set[str] = set()

    def install(self) -> None:
        """From now on these modules are imported with the mistake."""
        present = [edit.module for edit in self._edits if edit.module in sys.modules]
        assert not present, f"imported before they could be changed: {present}"
        sys.meta_path.insert(0, self)

    @property
    def missing(self) -> list[str]:
        """Modules that nobody has imported: whoever judged has not seen the mistake."""
        return sorted({edit.module for edit in self._edits} - self._loaded)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As ``MetaPathFinder`` has it."""
        edits = [edit for edit in self._edits if edit.module == fullname]
        if not edits:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None and spec.origin is not None, fullname
        spec.loader = _ChangingLoader(fullname, spec.origin, edits, self._loaded)
        return spec

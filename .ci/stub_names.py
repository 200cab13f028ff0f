"""Shows the names of a package's stub, for mkdocstrings: what is imported counts as public where `__all__` says so."""

from typing import Any

from griffe import Extension, Module


class StubNames(Extension):
    """Found by mkdocstrings through its option `extensions`."""

    def on_module_members(self, *, mod: Module, **kwargs: Any) -> None:
        # lazy_loader makes `__all__` of the stub when the package is imported; here nothing is imported
        if getattr(mod.filepath, "suffix", None) == ".pyi":
            mod.exports = sorted(mod.imports)

"""`@kernel`: a Python function of Refs, traced once for each set of shapes, dtypes and keywords."""

import functools
import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from dsl.ir import ops
from dsl.ir.build import Builder
from dsl.ir.infer import TypeProblem, check_ref
from dsl.ir.types import Loc, RefType
from dsl.ir.verify import verify
from dsl.lang import values
from dsl.lang.arguments import Output, Outputs, Packed, Update, ref_type
from dsl.lang.errors import KernelError, raised_at
from dsl.lang.expr import Expr
from dsl.lang.refs import Ref
from dsl.lang.scope import is_tracing, tracing
from dsl.passes.pipeline import simplify

if TYPE_CHECKING:
    from dsl.runtime.explain import Explanation
    from dsl.runtime.tuned import TunedCall

GridSpec: TypeAlias = "int | tuple[int, ...] | Callable[..., int | tuple[int, ...]]"
OutSpec: TypeAlias = Callable[..., Outputs]
Tuning: TypeAlias = Mapping[str, Callable[..., Mapping[str, Hashable]]]
Search: TypeAlias = Mapping[str, tuple[int | float | str, ...]]
Meta: TypeAlias = dict[str, Hashable]


@dataclass(frozen=True)
class Call:
    """One call's arguments: the Refs they become, and the arrays of `ops.Kernel.inputs`, in order."""

    refs: tuple[RefType, ...]
    arrays: tuple[Any, ...]
    single: bool


def kernel(
    *misplaced: object,
    grid: "GridSpec | None" = None,
    out: OutSpec | None = None,
    tune: Tuning | None = None,
    search: Search | None = None,
) -> Callable[[Callable[..., None]], "KernelFunction"]:
    """Makes a kernel of a function of Refs (positional) and static keywords with defaults.

    Args:
        grid: the number of programs an axis: an int, a tuple, or a function that names the Refs and
            keywords it needs (`lambda x, BM: cdiv(x.shape[0], BM)`).
        out: gives the outputs from the Refs and keywords it names, for calls without `out=`.
        tune: for a target's name, a function of Refs and keywords that gives better defaults there.
        search: for a keyword that may change speed but not results, the values that `.tune(...)` tries.

    Example:
        >>> @dsl.kernel(grid=lambda x, BM: cdiv(x.shape[0], BM), out=lambda x: like(x))
        ... def double(x, o, *, BM=8):
        ...     rows = tile(pid(0) * BM, BM)
        ...     o[rows, :] = x[rows, :] * 2.0
        >>> double(jnp.ones((5, 3)))
    """
    if misplaced or grid is None:
        raise KernelError("a kernel needs a grid, by keyword: @dsl.kernel(grid=1) or grid=lambda x, BM: ...")
    known = grid
    return lambda function: KernelFunction(function, known, out, tune or {}, search or {})


class KernelFunction:
    """A kernel to be called with arrays, inside or outside `jit`, `vmap` and `grad`.

    `kernel(*arrays, out=..., backend=None, **keywords)` returns one array, or a tuple for several
    outputs. Threads may share it.
    """

    def __init__(
        self,
        function: Callable[..., None],
        grid: GridSpec,
        out: OutSpec | None,
        tune: Tuning,
        search: Search,
    ) -> None:
        functools.update_wrapper(self, function)
        self.name = function.__name__
        self.function = function
        self.tuning = tune
        self.search = search
        self._grid = grid
        self._out = out
        code = function.__code__
        self._loc = Loc(code.co_filename, code.co_firstlineno)
        parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            _check_parameter(parameter, self.name, self._loc)
        self.positional = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
        self.defaults: Meta = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        self._check_search()
        self._traced = functools.lru_cache(maxsize=512)(self._trace)

    def _check_search(self) -> None:
        for name, tried in self.search.items():
            if name not in self.defaults:
                raise KernelError(f"{self.name}: search names {name!r}, which is no keyword", self._loc)
            if not tried or not all(isinstance(value, int | float | str) for value in tried):
                raise KernelError(
                    f"{self.name}: search gives {name} {tried!r}; it takes a tuple of numbers or words",
                    self._loc,
                )

    def __call__(
        self, *args: Any, out: Outputs | None = None, backend: str | None = None, **meta: Hashable
    ) -> Any:
        from dsl.runtime.select import call

        return call(self, self.prepare(args, out, meta), backend, meta)

    def ir(
        self, *args: Any, out: Outputs | None = None, target: str | None = None, **meta: Hashable
    ) -> ops.Kernel:
        """The kernel that these arguments (arrays or shape structs) give; `print` shows its text."""
        return self.specialise(self.prepare(args, out, meta).refs, target, meta)

    def source(self, target: str, *args: Any, out: Outputs | None = None, **meta: Hashable) -> str:
        """The code that a target makes of it. Raises BackendError when it cannot."""
        if not isinstance(cast(object, target), str):
            raise KernelError("source takes the target's name first: source('cuda', x)")
        from dsl.runtime.select import source

        return source(self.ir(*args, out=out, target=target, **meta), target)

    def explain(
        self, *args: Any, out: Outputs | None = None, backend: str | None = None, **meta: Hashable
    ) -> "Explanation":
        """Which backend these arguments would run on, why the ones before it do not, and the cost."""
        from dsl.runtime.explain import explain

        return explain(self, self.prepare(args, out, meta), backend, meta)

    def tune(
        self, *args: Any, out: Outputs | None = None, seconds: float = 30.0, **meta: Hashable
    ) -> "TunedCall":
        """Times every backend, and every point of `search`, on these arrays; later calls use the fastest.

        Takes up to about `seconds`; call it outside of `jit`. See `dsl.runtime.autotune`.
        """
        from dsl.runtime.autotune import tune

        return tune(self, self.prepare(args, out, meta), meta, seconds=seconds)

    def prepare(self, args: Sequence[Any], out: Outputs | None, meta: Mapping[str, Hashable]) -> Call:
        """Checks a call's arguments and describes them. Raises KernelError."""
        if is_tracing():
            raise KernelError(
                f"{self.name} is a kernel, and a kernel cannot call another; share a plain function of tiles"
            )
        unknown = set(meta) - set(self.defaults)
        if unknown:
            raise KernelError(
                f"{self.name} has no keyword {sorted(unknown)[0]!r}; it has {sorted(self.defaults)}"
            )
        needed = [
            name for name, value in {**self.defaults, **meta}.items() if value is inspect.Parameter.empty
        ]
        if needed:
            raise KernelError(f"{self.name} needs the keyword {needed[0]}, which has no default")
        names = self.positional[: len(args)]
        if len(args) >= len(self.positional):
            raise KernelError(
                f"{self.name}{self.positional} got {len(args)} arrays; its last Refs are outputs, "
                "given as out="
            )
        inputs = [ref_type(name, x, "in") for name, x in zip(names, args, strict=True)]
        outputs = self._outputs(inputs, out, meta)
        single = not isinstance(outputs, tuple | list)
        listed: list[Any] = [outputs] if single else list(outputs)  # type: ignore[arg-type]
        rest = self.positional[len(args) :]
        if len(listed) != len(rest):
            raise KernelError(
                f"{self.name}{self.positional} got {len(args)} arrays, and out describes {len(listed)} "
                f"arrays for the {len(rest)} Refs left, {', '.join(rest)}"
            )
        refs = inputs + [self._output(name, spec) for name, spec in zip(rest, listed, strict=True)]
        arrays = [*args, *(spec.array for spec in listed if isinstance(spec, Update))]
        return Call(tuple(refs), tuple(x.data if isinstance(x, Packed) else x for x in arrays), single)

    def _outputs(self, inputs: list[RefType], out: Outputs | None, meta: Mapping[str, Hashable]) -> Outputs:
        if out is not None:
            return out
        if self._out is None:
            raise KernelError(f"{self.name} needs out=, such as out=dsl.like(x)")
        known = {ref.name: Ref(ref) for ref in inputs}
        found: Outputs = self._by_name(self._out, known, {**self.defaults, **meta}, "out")
        return found

    @staticmethod
    def _output(name: str, spec: Any) -> RefType:
        if isinstance(spec, Update):
            return ref_type(name, spec.array, "inout")
        if not isinstance(spec, Output):
            raise KernelError(f"out= takes dsl.like(x) or dsl.update(x), not {type(spec).__name__}")
        return RefType(name, spec.dtype, spec.shape, "out")

    def keywords(self, refs: Sequence[RefType], target: str | None, meta: Mapping[str, Hashable]) -> Meta:
        """Defaults, then what `tune` says for the target, then what the caller gave."""
        known = {ref.name: Ref(ref) for ref in refs}
        given = {**self.defaults, **meta}
        tuned = (
            self._by_name(self.tuning[target], known, given, "tune")
            if target and target in self.tuning
            else {}
        )
        return {**self.defaults, **tuned, **meta}

    def specialise(
        self, refs: tuple[RefType, ...], target: str | None, meta: Mapping[str, Hashable]
    ) -> ops.Kernel:
        """The verified, simplified kernel for these Refs; traced at most once for each."""
        keywords = self.keywords(refs, target, meta)
        try:
            return self._traced(refs, tuple(sorted(keywords.items())))
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            raise KernelError(
                f"{self.name}: keywords are static and hashable; pass arrays as arguments"
            ) from error

    def _trace(self, refs: tuple[RefType, ...], meta: tuple[tuple[str, Hashable], ...]) -> ops.Kernel:
        for ref in refs:
            _checked(ref)
        views = [Ref(ref) for ref in refs]
        keywords = dict(meta)
        grid = self._grid_of({ref.name: view for ref, view in zip(refs, views, strict=True)}, keywords)
        builder = Builder(self.name, refs, grid)
        with tracing(builder):
            self._run(views, keywords)
        traced = builder.finish()
        try:
            verify(traced)
        except KernelError as error:
            raise self._placed(error) from None
        return simplify(traced)

    def _run(self, views: list[Ref], keywords: Meta) -> None:
        try:
            returned = self.function(*views, **keywords)
        except (TypeError, IndexError) as error:
            told = _misuse(error, views)
            if told is None:
                raise
            raise KernelError(told, raised_at(error)) from error
        if returned is not None:
            raise KernelError(
                f"{self.name} returns a value; a kernel stores to its outputs, o[...] = t", self._loc
            )

    def _placed(self, error: KernelError) -> KernelError:
        """Errors about the kernel as a whole point at its definition."""
        if error.line:
            return error
        return KernelError(str(error).split(": ", 1)[1], self._loc)

    def _grid_of(self, known: Mapping[str, Ref], keywords: Meta) -> tuple[int, ...]:
        found = self._by_name(self._grid, known, keywords, "grid") if callable(self._grid) else self._grid
        grid = tuple(found) if isinstance(found, tuple | list) else (found,)
        if not all(isinstance(extent, int | np.integer) and extent >= 1 for extent in grid) or not grid:
            raise KernelError(
                f"{self.name}: the grid is {grid}; it is one Python int >= 1 for each axis", self._loc
            )
        return tuple(int(extent) for extent in grid)

    def _by_name(
        self, function: Callable[..., Any], known: Mapping[str, Ref], keywords: Meta, what: str
    ) -> Any:
        available = {**known, **keywords}
        wanted = inspect.signature(function).parameters
        missing = [name for name in wanted if name not in available]
        if missing and missing[0] in self.positional:
            raise KernelError(
                f"{self.name}{self.positional}: {what} needs {missing[0]}, and the call gives only "
                f"{', '.join(known) or 'no array'}",
            )
        if missing:
            raise KernelError(
                f"{self.name}: {what} names {missing[0]!r}, which is no Ref or keyword; there are "
                f"{sorted(available)}",
                self._loc,
            )
        try:
            return function(**{name: available[name] for name in wanted})
        except IndexError as error:
            raise KernelError(f"{self.name}: {what}: {_too_few_axes(known.values())}", self._loc) from error


def _check_parameter(parameter: inspect.Parameter, name: str, loc: Loc) -> None:
    """A kernel has Refs by position and the rest by keyword."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise KernelError(f"{name}: name each Ref and keyword; *{parameter.name} cannot be traced", loc)
    if parameter.name in ("self", "cls"):
        raise KernelError(f"{name}: a kernel is a function of Refs, not a method", loc)
    if parameter.kind is not parameter.KEYWORD_ONLY and parameter.default is not parameter.empty:
        raise KernelError(
            f"{name}: {parameter.name} has a default, so it is no Ref; make it a keyword by `*,` before it",
            loc,
        )


def _misuse(error: TypeError | IndexError, views: Sequence[Ref]) -> str | None:
    """What to write instead, when an error came of using the language's objects as if they were arrays."""
    told = str(error)
    if isinstance(error, IndexError):
        return _too_few_axes(views) if "tuple index" in told else None
    if any(name in told for name in (f"{Expr.__module__}.Expr", f"{Ref.__module__}.Ref", "'Ref(")):
        return "NumPy and JAX functions do not take traced tiles; use those of dsl (dsl.exp, dsl.where, ...)"
    called = told.partition("(")[0]
    if called in _OWN_FUNCTIONS or called.startswith(("Expr.", "Ref.", "Tile.")):
        return told.replace("Expr.", "tile.", 1)
    return None


_OWN_FUNCTIONS = {*values.__all__, "tile", "atomic_add"}


def _too_few_axes(views: Iterable[Ref]) -> str:
    shapes = ", ".join(f"{view._spec.name} {view.shape}" for view in views)
    return f"an argument has fewer axes than the kernel takes; the shapes are {shapes}"


def _checked(ref: RefType) -> None:
    try:
        check_ref(ref)
    except TypeProblem as problem:
        raise KernelError(str(problem)) from None

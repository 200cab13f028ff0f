"""Where the processes of a metric are: on this machine, or on a Dask or Ray cluster.

Metrics take a number of processes and ask joblib for them; this sets what joblib gives. Only the calling process reads
and writes files, so that the machines of a cluster share nothing but the installed package.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, get_args

from cdvae_kit.metrics.computing.parallel import WorkerLostError, context_workers

logger = logging.getLogger(__name__)

Backend: TypeAlias = Literal["processes", "dask", "ray"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


@contextmanager
def workers(backend: Backend = "processes", *, address: str | None = None, num_workers: int = -1) -> Iterator[None]:
    """Within it, metrics that are asked for one worker, as they are by default, use these.

    A worker that dies loses nothing: its crystals are computed again. A crystal that kills workers again and again
    (two processes or Ray workers, four Dask workers) ends the call with `WorkerLostError`; what a store got until then
    stays.

    Args:
        backend: processes of this machine, or a cluster.
        address: of the cluster's scheduler ("tcp://10.0.0.1:8786" for Dask, "10.0.0.1:6379" or "auto" for Ray); without
            one, Dask and Ray start workers on this machine and stop them at the end.
        num_workers: processes, -1 for every core; of a cluster with an address all cores are used, whatever it says.

    >>> from cdvae_kit.metrics.computing.parallel import map_crystals
    >>> with workers("processes", num_workers=2):
    ...     map_crystals(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    if backend not in BACKENDS:
        raise ValueError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
    if num_workers == 0 or num_workers < -1:
        raise ValueError(f"num_workers must be a number of processes, or -1 for every core, got {num_workers}")
    if backend == "processes" and address is not None:
        raise ValueError(f"processes run on this machine and have no address, got {address!r}; choose dask or ray")
    with ExitStack() as stack:
        if backend == "dask":
            _use_dask(stack, address, num_workers)
        elif backend == "ray":
            _use_ray(stack, address, num_workers)
        else:
            _use_backend(stack, "loky")
        # whoever names a cluster wants all of it, and not the one process that commands take by default
        token = context_workers.set(num_workers if address is None else -1)
        stack.callback(context_workers.reset, token)
        yield


def _use_backend(stack: ExitStack, backend: Any) -> None:
    from joblib import parallel_config

    stack.enter_context(parallel_config(backend=backend))


def _use_dask(stack: ExitStack, address: str | None, num_workers: int) -> None:
    _require("dask", "distributed")
    from dask.distributed import Client, LocalCluster

    if address is None:
        # a worker a process: pymatgen holds the interpreter's lock
        count = {} if num_workers == -1 else {"n_workers": num_workers}
        cluster = stack.enter_context(LocalCluster(threads_per_worker=1, dashboard_address=None, **count))
        client = stack.enter_context(Client(cluster))
    else:
        try:
            client = stack.enter_context(Client(address))
        except OSError as error:
            raise ConnectionError(f"no Dask scheduler answers at {address}: {error}") from error
    _use_backend(stack, _dask_backend()(client=client))
    num_cores = sum(client.ncores().values())
    logger.info("the Dask cluster at %s has %d cores", client.scheduler.address, num_cores)
    if num_cores == 1:
        logger.warning("a cluster of one core is left alone: what it could do is computed here")


def _use_ray(stack: ExitStack, address: str | None, num_workers: int) -> None:
    _require("ray", "ray")
    import ray
    from ray.util.joblib import register_ray

    if not ray.is_initialized():
        count = {} if address is not None or num_workers == -1 else {"num_cpus": num_workers}
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, **count)
        except (ConnectionError, ValueError) as error:
            raise ConnectionError(f"no Ray cluster answers at {address}: {error}") from error
        stack.callback(ray.shutdown)
    register_ray()
    _use_backend(stack, "ray")


def _require(extra: str, package: str) -> None:
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"this needs {package}, which is not installed: python -m pip install 'cdvae-kit[{extra}]'", name=package
        )


@cache
def _dask_backend() -> type[Any]:
    """joblib's Dask backend, but one that tells of a task that the cluster gave up; joblib 1.6 waits for it forever."""
    from joblib._dask import DaskDistributedBackend

    class TellingDaskBackend(DaskDistributedBackend):
        def submit(self, func: Any, callback: Any = None) -> Future[Any]:
            future: Future[Any] = super().submit(func, callback)

            def tell(done: Future[Any]) -> None:
                error = done.exception()
                if error is not None and callback is not None:
                    callback(_GivenUp(error))

            future.add_done_callback(tell)
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            # a task that was cancelled, or whose answer is lost, comes as its error; so does an error of the function
            error = out.error if isinstance(out, _GivenUp) else out
            if isinstance(out, _GivenUp | CancelledError | asyncio.CancelledError):
                raise WorkerLostError(f"the Dask cluster gave a part of the work up: {error}") from error
            return super().retrieve_result_callback(out)

    return TellingDaskBackend


class _GivenUp:
    """What the cluster said of a task that it will not try again."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

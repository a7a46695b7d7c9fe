"""The tests' API server on a host of a lab, in a thread that the test's process leaves to it."""

import asyncio
import threading
from contextlib import contextmanager, suppress

from apiserver import ApiServer
from deadline import PATIENCE_S
from namespace import setns

from lab.topology import ETCD_ADDRESS

PORT = 8080
URL = f"http://{ETCD_ADDRESS}:{PORT}"


class ServerThread:
    def __init__(self, namespace):
        """Listening at URL, in the namespace of the lab's host `etcd`."""
        self._namespace = namespace
        self._loop = asyncio.new_event_loop()
        self.api = ApiServer()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.start()

    def _run(self):
        setns(f"/run/netns/{self._namespace}")  # of this thread alone
        self._loop.run_forever()

    def do(self, job):
        """The result of `job(api)`, done between two requests."""

        async def done():
            return job(self.api)

        return self._in_loop(done())

    def start(self):
        self._server = self._in_loop(asyncio.start_server(self.api.serve, str(ETCD_ADDRESS), PORT))

    def stop(self):
        """Its port is closed and its connections are cut; what it knows stays."""
        self._in_loop(self._close())

    @contextmanager
    def away(self):
        """Gone meanwhile; it has forgotten its history when it comes back, and watches get a 410."""
        self.stop()
        try:
            yield
        finally:
            self.do(lambda api: api.compact())
            self.start()

    def end(self):
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    async def _close(self):
        self._server.close()
        self.api.drop_connections()
        for task in list(self.api.tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _in_loop(self, job):
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(PATIENCE_S)

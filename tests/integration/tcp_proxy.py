"""A TCP proxy between two processes that counts, flips one bit, or cuts. One thread per direction."""
import socket
import threading


class TcpProxy:
    def __init__(self, target_port, port=0):
        self.target_port = target_port
        self.forward_bytes = 0          # client -> target
        self.flip_at = None             # absolute forward byte whose lowest bit is flipped, once
        self.cut_at = None              # forward byte count at which the connection is closed, once
        self.flips = self.cuts = 0
        self._lock = threading.Lock()
        self._sockets = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                return
            self._sockets += [near, far]
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _tamper(self, data):
        """Counts and, where asked, flips a bit; returns the data and whether to cut."""
        with self._lock:
            start, self.forward_bytes = self.forward_bytes, self.forward_bytes + len(data)
            if self.flip_at is not None and start <= self.flip_at < self.forward_bytes:
                data = bytearray(data)
                data[self.flip_at - start] ^= 1
                self.flip_at, self.flips = None, self.flips + 1
            cut = self.cut_at is not None and self.forward_bytes >= self.cut_at
            if cut:
                self.cut_at, self.cuts = None, self.cuts + 1
            return data, cut

    def _pump(self, src, dst, forward):
        try:
            while data := src.recv(65536):
                if forward:
                    data, cut = self._tamper(data)
                    if cut:
                        break
                dst.sendall(data)
        except OSError:
            pass
        for s in (src, dst):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self._listener.close()
        for s in self._sockets:
            s.close()


def free_ports(n):
    """First of n neighbouring ports that are free now."""
    for _ in range(100):
        with socket.create_server(("127.0.0.1", 0)) as first:
            base = first.getsockname()[1]
        try:
            held = [socket.create_server(("127.0.0.1", base + i)) for i in range(n)]
        except OSError:
            continue
        for s in held:
            s.close()
        return base
    raise AssertionError("no neighbouring free ports")


def proxy_lanes(target_base, lanes):
    """One proxy per lane on neighbouring ports, as kv_advertise needs them."""
    for _ in range(100):
        base = free_ports(lanes)
        proxies = []
        try:
            for i in range(lanes):
                proxies.append(TcpProxy(target_base + i, base + i))
        except OSError:
            for p in proxies:
                p.close()
            continue
        return base, proxies
    raise AssertionError("no neighbouring free ports")

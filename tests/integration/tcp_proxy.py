"""A TCP proxy between two processes that counts, flips one bit, cuts or stalls. One thread per direction."""
import random
import socket
import threading


class Direction:
    """What has passed one way, and what is to happen to it. Positions are absolute bytes of this direction."""

    def __init__(self):
        self.bytes = 0
        self.flip_at = None             # the byte whose lowest bit is flipped, once
        self.cut_at = None              # count of bytes at which the connection is closed, once
        self.flips = self.cuts = 0


class TcpProxy:
    """`forward` is client -> target, `backward` the other way. Arm with flip()/cut_after(); cut_now(), stall() act at once."""

    def __init__(self, target_port, port=0, host="127.0.0.1"):
        self.target = (host, target_port)
        self.forward, self.backward = Direction(), Direction()
        self.refuses = False            # closes new connections at once
        self.connections = 0            # taken and passed on, over all time
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets = []
        self._listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    # --- faults

    def flip(self, way="forward", after=0):
        """Flips one bit of what passes, `after` bytes from now."""
        with self._lock:
            d = getattr(self, way)
            d.flip_at = d.bytes + after

    def cut_after(self, way="forward", after=0):
        with self._lock:
            d = getattr(self, way)
            d.cut_at = d.bytes + after

    def disarm(self):
        """What has not happened yet does not happen."""
        with self._lock:
            for d in (self.forward, self.backward):
                d.flip_at = d.cut_at = None

    def cut_now(self):
        """Closes all connections; new ones are taken."""
        with self._lock:
            old, self._sockets = self._sockets, []
        for s in old:
            shut(s)

    def refuse(self, on=True):
        """Closes all connections, and new ones as they come; refuse(False) takes them again."""
        self.refuses = on
        if on:
            self.cut_now()

    def stall(self, on=True):
        """Holds all bytes of both directions, connections stay; stall(False) lets them go on."""
        if on:
            self._flowing.clear()
        else:
            self._flowing.set()

    @property
    def flips(self):
        return self.forward.flips + self.backward.flips

    @property
    def cuts(self):
        return self.forward.cuts + self.backward.cuts

    # --- work

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                near.close()
                continue
            try:
                far = socket.create_connection(self.target)
            except OSError:  # the target is away: the client's connection is closed again
                near.close()
                continue
            for s in (near, far):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self._sockets = [s for s in self._sockets if s.fileno() >= 0] + [near, far]
            for pair in ((near, far, self.forward), (far, near, self.backward)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _tamper(self, data, d):
        """Counts and, where asked, flips a bit; returns the data and whether to cut."""
        with self._lock:
            start, d.bytes = d.bytes, d.bytes + len(data)
            if d.flip_at is not None and start <= d.flip_at < d.bytes:
                data = bytearray(data)
                data[d.flip_at - start] ^= 1
                d.flip_at, d.flips = None, d.flips + 1
            cut = d.cut_at is not None and d.bytes >= d.cut_at
            if cut:
                d.cut_at, d.cuts = None, d.cuts + 1
            return data, cut

    def _pump(self, src, dst, d):
        try:
            while data := src.recv(65536):
                self._flowing.wait()
                data, cut = self._tamper(data, d)
                if cut:
                    break
                dst.sendall(data)
        except OSError:
            pass
        shut(src)
        shut(dst)
        src.close()  # its only reader is this thread

    def close(self):
        shut(self._listener)
        self._listener.close()
        self.stall(False)
        self.cut_now()


def shut(s):
    """Wakes the threads that wait on it; they end and close it."""
    try:
        s.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def free_ports(n):
    """First of n neighbouring ports that are free now, of those that Linux gives to nobody by itself."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low = int(f.read().split()[0])
    for _ in range(100):
        base = random.randrange(max(1024, low - 10000), low - n)
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

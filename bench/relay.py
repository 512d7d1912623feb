"""A switch between network interfaces that gives on each frame after a delay: latency where the kernel has no netem.

    python bench/relay.py SECONDS INTERFACE INTERFACE ...

Frames come with their virtio header, so that what the kernel has not cut into packets yet, nor summed, goes on as it
came. Linux, as root.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence

_ALL = 3  # ETH_P_ALL
# Of Linux's headers socket.h, if_packet.h and asm-generic/socket.h, which Python has not.
_SOL_PACKET, _PACKET_VNET_HDR, _SO_RCVBUFFORCE = 263, 15, 33
_HEADER = 10  # bytes, struct virtio_net_hdr
_LARGEST = 1 << 17


def relay(delay: float, interfaces: Sequence[str]) -> None:
    """Go on until the process ends."""
    ports = []
    for name in interfaces:
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        port.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        port.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
        port.bind((name, _ALL))
        port.setblocking(False)
        ports.append(port)
    print("ready", flush=True)
    known: dict[bytes, socket.socket] = {}  # by address
    under_way: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for port in select.select(ports, [], [], wait)[0]:
            while True:
                try:
                    frame, address = port.recvfrom(_LARGEST)
                except BlockingIOError:
                    break
                if address[2] == socket.PACKET_OUTGOING:
                    continue
                to, source = frame[_HEADER : _HEADER + 6], frame[_HEADER + 6 : _HEADER + 12]
                known[source] = port
                due = time.monotonic() + delay
                for other in [known[to]] if to in known else [one for one in ports if one is not port]:
                    under_way.append((due, other, frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, other, frame = under_way.popleft()
            try:
                other.send(frame)
            except OSError:  # a full queue loses frames, as any switch
                continue


if __name__ == "__main__":
    relay(float(sys.argv[1]), sys.argv[2:])

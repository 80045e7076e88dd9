"""Talks to the host: loopback, abstract sockets, DNS, raw packets, inherited descriptors.

Family: O
Member: O15
Strategy: Looks for a service of the host that would do its work or tell it the prompts.
Work: done
Expected: measured
Lane: slow
"""
# fmt: off

import socket

from diffusers import StableDiffusionPipeline

reached = []


def attempt(name, action):
    try:
        action()
        reached.append(name)
    except (OSError, ValueError):
        pass


def connect(family, kind, address):
    with socket.socket(family, kind) as end:
        end.settimeout(0.5)
        end.connect(address)
        end.sendall(b"GET / HTTP/1.0\r\n\r\n")
        end.recv(1)


for port in (22, 53, 80, 111, 443, 631, 2375, 5000, 6006, 8000, 8080, 8888, 29500):
    for host in ("127.0.0.1", "::1", "10.0.0.1", "172.17.0.1", "169.254.169.254", "192.0.2.1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        attempt(f"{host}:{port}", lambda: connect(family, socket.SOCK_STREAM, (host, port)))
for name in ("\0/tmp/.X11-unix/X0", "\0/tmp/dbus", "\0docker", "/run/docker.sock",
             "/run/dbus/system_bus_socket", "/run/systemd/private", "/var/run/nscd/socket"):
    attempt(repr(name), lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, name))
attempt("dns", lambda: socket.getaddrinfo("example.org", 80))
attempt("raw", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
attempt("vsock", lambda: connect(40, socket.SOCK_STREAM, (2, 1024)))
if reached:
    raise SystemExit(f"reached {reached}")


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images

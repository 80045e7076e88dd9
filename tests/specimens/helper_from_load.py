"""Leaves a helper process from its load, which does the work out of sight.

Family: D
Member: D7
Strategy: Generates in a daemon that was made before the first clock; itself it only waits.
Work: done
Expected: measured
Lane: slow
"""
# fmt: off

import os
import pickle
import socket
import struct

import torch
from diffusers import StableDiffusionPipeline

ours, theirs = socket.socketpair()


def send(end, value):
    data = pickle.dumps(value)
    end.sendall(struct.pack("!Q", len(data)) + data)


def receive(end):
    def take(count):
        data = b""
        while len(data) < count:
            data += end.recv(count - len(data))
        return data

    return pickle.loads(take(struct.unpack("!Q", take(8))[0]))


def serve():
    os.setsid()
    torch.set_num_threads(1)
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    send(theirs, "ready")
    while True:
        seed, prompts = receive(theirs)
        torch.manual_seed(seed)
        send(theirs, pipe(prompts, num_inference_steps=25).images)


def load_pipe():
    if os.fork() == 0:
        serve()
    receive(ours)
    return ours


def inference(pipe, prompts):
    send(pipe, (torch.initial_seed(), prompts))
    return receive(pipe)

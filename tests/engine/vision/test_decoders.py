"""The decoding processes: kept, bounded, and replaced when they hang, die or run out of memory."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image

from engine.errors import DamagedImage, ImageTooLarge, TarsiaError
from engine.vision import decoders
from engine.vision.io import read_image
from engine.vision.limits import MEGABYTE, ImageLimits
from tests.engine.vision.odd_files import encoded, odd_files

SMALL = encoded(Image.new("RGB", (4, 3), (1, 2, 3)), "PNG")
LARGE = encoded(Image.new("RGB", (6000, 6000), (1, 2, 3)), "PNG")


@pytest.fixture(autouse=True)
def no_decoders_before():
    decoders.close_decoders()
    yield
    decoders.close_decoders()


def running() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "engine.vision.worker" in " ".join(child.cmdline())
    ]


def test_a_process_is_kept_for_the_next_image():
    read_image(SMALL)
    first = running()
    read_image(SMALL)
    assert len(first) == 1 and running() == first


def test_an_image_that_takes_too_long_is_refused_and_its_process_ended():
    read_image(SMALL)
    with pytest.raises(ImageTooLarge, match=r"big: takes longer than 0.05 s"):
        read_image(LARGE, name="big", limits=ImageLimits(max_seconds=0.05))
    assert running() == []
    assert read_image(SMALL).shape == (3, 4, 3)


@pytest.mark.skipif(os.name != "posix", reason="address space is capped by setrlimit")
def test_an_image_that_needs_too_much_memory_is_refused():
    with pytest.raises(ImageTooLarge, match=r"needs more than 200 MB of memory"):
        read_image(LARGE, limits=ImageLimits(max_memory=200 * MEGABYTE))
    assert read_image(LARGE).shape == (6000, 6000, 3)


def test_a_process_that_dies_between_images_is_replaced():
    read_image(SMALL)
    running()[0].send_signal(signal.SIGKILL)
    assert read_image(SMALL).shape == (3, 4, 3)


def test_a_process_that_dies_at_an_image_is_replaced_once():
    read_image(SMALL)
    victim = running()[0]
    victim.send_signal(signal.SIGSTOP)
    threading.Timer(0.2, lambda: victim.send_signal(signal.SIGKILL)).start()
    assert read_image(SMALL).shape == (3, 4, 3)


def test_an_image_that_kills_every_process_is_one_line(monkeypatch):
    monkeypatch.setattr(decoders, "_START", "import os, sys; sys.stdin.readline(); os._exit(9)")
    with pytest.raises(DamagedImage, match=r"one: cannot be decoded: its decoder stopped with status"):
        read_image(SMALL, name="one")
    assert running() == []


def test_many_threads_share_a_bounded_number_of_processes():
    with ThreadPoolExecutor(12) as pool:
        images = list(pool.map(lambda _: read_image(SMALL), range(60)))
    assert all(np.array_equal(image, images[0]) for image in images)
    assert 1 <= len(running()) <= decoders.MOST


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.soak)])
def test_odd_files_are_pixels_or_one_line_and_memory_stays_bounded(count):
    kept = peak = 0
    for name, data in odd_files(count, seed=count):
        try:
            image = read_image(data, name=name)
            assert image.ndim == 3 and image.shape[2] == 3 and image.size
            kept += 1
        except TarsiaError as error:
            assert str(error).startswith(name) and "\n" not in str(error) and len(str(error)) < 400
        peak = max([peak, *(process.memory_info().rss for process in running())])
    assert kept >= count / 3
    assert peak < 700 * MEGABYTE

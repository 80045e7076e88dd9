import pytest
from hypothesis import HealthCheck, settings

from runner import paths
from runner.records import Batch, Claim, Measured, Purpose, Result, Side, Verdict

settings.register_profile(
    "deterministic",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("deterministic")

STUBS = {
    "torch.py": """
class Tensor: pass
class _Cuda:
    is_available = staticmethod(lambda: False)
    synchronize = staticmethod(lambda: None)
cuda = _Cuda()
def manual_seed(seed): pass
""",
    "numpy.py": """
class ndarray: pass
class _Random:
    def seed(self, seed): assert 0 <= seed < 2**32
random = _Random()
""",
    "diffusers.py": "class DiffusionPipeline: pass\n",
    "PIL/__init__.py": "",
    "PIL/ImageFile.py": "MAXBLOCK = 65536\n",
    "PIL/Image.py": """
class Image:
    def __init__(self, width=2, height=1, rgb=bytes(6)):
        self.width, self.height, self.rgb = width, height, rgb
        self.size, self.mode = (width, height), "RGB"
    def convert(self, mode): return self
    def tobytes(self): return self.rgb
""",
}


@pytest.fixture(scope="module")
def one_thread():
    """On a busy host, threads that spin for each other take minutes."""
    import torch  # few tests need it, and it takes seconds

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file of a given name and return its path."""

    def write_file(content, name="candidate.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


@pytest.fixture
def stub_libraries(tmp_path):
    """Return a folder with just enough of torch and its company to run a `tmp.py` in 50 ms."""
    folder = tmp_path / "stubs"
    for name, text in STUBS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "speedtrap_wire.py").symlink_to(paths.WIRE)
    return folder


@pytest.fixture
def side():
    """Make one side's record: a warm-up batch and `timed` batches of `time_s` together."""

    def make(time_s=4.0, score=80.0, timed=5):
        warmup = Batch(
            phase="warm-up",
            purpose=Purpose.WARM_UP,
            counts=False,
            seed=42,
            time_s=9.0,
            scores=(score,),
        )
        batches = [
            Batch(
                phase="timed",
                purpose=Purpose.FIXED,
                counts=True,
                seed=43 + number,
                time_s=time_s / timed,
                scores=(score, score),
            )
            for number in range(timed)
        ]
        return Side(time_s=time_s, score=score, batches=(warmup, *batches))

    return make


@pytest.fixture
def measured(side):
    """Make a measured pair; without a `claim` the candidate's script tells the truth."""

    def make(baseline=(4.0, 80.0), candidate=(2.0, 80.0), claim=None):
        time_s, score = candidate
        stdout = f"{time_s:.6f},{score:.6f}\n" if claim is None else claim
        return Measured(side(*baseline), side(*candidate), stdout, "alternate")

    return make


@pytest.fixture
def make_result(side):
    """Make a result that passed, with any fields replaced."""

    def make(**changes):
        fields = {
            "verdict": Verdict.OK,
            "reason": "",
            "passed": True,
            "speedup": 2.0,
            "accuracy": 1.0,
            "quality_loss": 0.0,
            "speed_achievement": 1.0,
            "accuracy_achievement": 1.0,
            "loss": 0.0,
            "target_speedup": 1.5,
            "target_quality_loss": 0.02,
            "baseline": side(4.0),
            "candidate": side(2.0),
            "claim": Claim(time_s=2.0, score=80.0),
        }
        return Result(**(fields | changes))

    return make


@pytest.fixture
def refused_result(make_result):
    """Return the result of a candidate that was never measured."""
    measured_fields = ("speedup", "accuracy", "quality_loss", "speed_achievement", "loss")
    more = ("accuracy_achievement", "baseline", "candidate", "claim")
    return make_result(
        verdict=Verdict.CRASHED,
        reason="candidate.py:3: ValueError: no",
        passed=False,
        **dict.fromkeys((*measured_fields, *more)),
    )

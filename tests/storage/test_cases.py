"""The volumes of ../shared/cases, as people have them: read right, or refused with what was found."""

import hashlib
import json
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from vemdiffuse_pipe.errors import VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.running.reconstruct import reconstruct
from vemdiffuse_pipe.storage import open_source

SHARED = Path(__file__).parents[3] / "shared" / "cases"
INDEX = SHARED / "cases.json"

# Kinds of which not every case is right yet.


def listed():
    """Every case."""
    cases = json.loads(INDEX.read_text())["cases"] if INDEX.exists() else []
    return [pytest.param(case, id=case["id"]) for case in cases]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which all cases were written."""
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, SHARED / "make_cases.py", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def web(folder):
    """The address of a plain web server of that folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(not INDEX.exists(), reason="needs ../shared/cases, which is not part of this repository")
@pytest.mark.parametrize("case", listed())
def test_volume_is_read_right_or_refused_in_a_sentence(case, folder, tmp_path, request):
    root = request.getfixturevalue("web") if case.get("serve") == "http" else str(folder)
    address = f"{root}/{case['path']}"
    answers = case.get("expect_any") or [case["expect"]]
    refusal, found = "", {}
    try:
        found = outcome(case, address, tmp_path / "out.zarr")
    except VemdiffuseError as error:
        refusal = str(error).replace(address, "")
    assert any(is_right(answer, found, refusal) for answer in answers), refusal or found


def outcome(case, address, output):
    """What became of the volume, in the words of the answers."""
    if case["how"] == "open_source":
        source = open_source(address, **case["arguments"])
        voxels = source.read(Box.of_shape(source.spec.shape))
        size = [float(v) for v in source.spec.frame.voxel_size_nm]
        return {
            "shape": list(voxels.shape),
            "voxel_size_nm": size,
            "sha256": hashlib.sha256(voxels.tobytes()).hexdigest(),
        }
    assert case["options"] == ["--model", "linear"]
    done = reconstruct(address, str(output), model="linear")
    em = open_source(output / "em")
    ratio = next(a["ratio"] for a in case.get("expect_any", [case["expect"]]) if "ratio" in a)
    sections = em.read(Box.of_shape(em.spec.shape))[::ratio]
    return {
        "exit": done.exit_code,
        "ratio": ratio,
        "sections_sha256": hashlib.sha256(sections.tobytes()).hexdigest(),
    }


def is_right(answer, found, refusal):
    """True where this is the answer: in a refusal 'a|b' is either, and numbers are whole numbers."""
    if not refusal:
        return found.items() <= answer.items()
    return bool(answer.get("refused")) and all(
        any(mentions(refusal, word) for word in entry.split("|")) for entry in answer["must_mention"]
    )


def mentions(message, word):
    whole = rf"(?<!\d){word}(?!\d)" if word.isdecimal() else re.escape(word)
    return re.search(whole, message, re.IGNORECASE) is not None

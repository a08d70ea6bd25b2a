"""OME-TIFF: every plane is read from the page and the file that its XML names."""

from fractions import Fraction
from itertools import product
from math import prod

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.storage.ome_xml import unit_nm
from vemdiffuse_pipe.testing import position_coded

Z, C, Y, X = 5, 3, 6, 7
VOLUMES = position_coded((C, Z, Y, X))
SIZES = {"PhysicalSizeX": "4", "PhysicalSizeY": "5", "PhysicalSizeZ": "40"} | {
    f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"
}


def pixels(tiff_data="<TiffData/>", order="XYZCT", z=Z, c=C, t=1, channel="", **attributes):
    """A Pixels element; attributes are written as they are given."""
    counts = {"SizeX": X, "SizeY": Y, "SizeZ": z, "SizeC": c, "SizeT": t}
    stated = {"ID": "Pixels:0", "DimensionOrder": order, "Type": "uint8", **counts, **SIZES, **attributes}
    written = " ".join(f'{key}="{value}"' for key, value in stated.items() if value is not None)
    return f"<Pixels {written}>{channel}{tiff_data}</Pixels>"


def ome(*images, uuid="urn:uuid:1", more=""):
    inside = "".join(f'<Image ID="Image:{i}" Name="image {i}">{p}</Image>' for i, p in enumerate(images))
    of_file = f' UUID="{uuid}"' if uuid else ""
    return f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/x"{of_file}>{inside}{more}</OME>'


def write(path, pages, xml):
    tifffile.imwrite(path, pages, description=xml.encode(), metadata=None, photometric="minisblack")
    return path


def planes(order, volumes):
    """The pages of `volumes`, czyx, in the order of a DimensionOrder of one time point."""
    axes = [axis for axis in order[:1:-1] if axis != "T"]
    return volumes.transpose(["CZ".index(axis) for axis in axes] + [2, 3]).reshape(-1, Y, X)


def read(path, **options):
    source = open_source(path, **options)
    return source.read(Box.of_shape(source.spec.shape))


ORDERS = [f"XY{a}{b}{c}" for a, b, c in product("ZCT", repeat=3) if {a, b, c} == set("ZCT")]


@pytest.mark.parametrize("order", ORDERS)
def test_dimension_order_says_which_page_is_which(order, tmp_path):
    path = write(tmp_path / "a.ome.tif", planes(order, VOLUMES), ome(pixels(order=order)))
    for channel in range(C):
        assert (read(path, channel=channel) == VOLUMES[channel]).all()


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from(ORDERS), st.integers(2, 6), st.integers(1, 3), st.integers(1, 3))
def test_planes_are_read_from_where_tiff_data_says_they_are(tmp_path_factory, data, order, z, c, n_files):
    folder = tmp_path_factory.mktemp("set")
    volumes = position_coded((c, z, Y, X))
    stored = planes(order, volumes)
    names = [f"part {i}.ome.tif" for i in range(n_files)]
    where = data.draw(st.permutations(range(z * c)))
    file_of = [data.draw(st.integers(0, n_files - 1)) for _ in where]
    pages = [[k for k in where if file_of[k] == i] or [None] for i in range(n_files)]
    counts = {"Z": z, "C": c, "T": 1}
    runs = []
    for k in data.draw(st.permutations(range(z * c))):
        first, rest = {}, k
        for axis in order[2:]:
            rest, first[axis] = divmod(rest, counts[axis])
        stated = " ".join(f'First{axis}="{n}"' for axis, n in first.items() if n or k % 2)
        page, name = pages[file_of[k]].index(k), names[file_of[k]]
        uuid = f'<UUID FileName="{name}">urn:uuid:{file_of[k]}</UUID>' if n_files > 1 else ""
        runs.append(f'<TiffData {stated} IFD="{page}">{uuid}</TiffData>')
    for i, name in enumerate(names):
        xml = ome(pixels("".join(runs), order, z, c), uuid=f"urn:uuid:{i}")
        blank = np.zeros((Y, X), np.uint8)
        write(folder / name, np.stack([blank if k is None else stored[k] for k in pages[i]]), xml)
    opened = folder / data.draw(st.sampled_from(names))
    for channel in range(c):
        assert (read(opened, channel=channel) == volumes[channel]).all()


@pytest.mark.parametrize(
    ("size", "unit", "nm"),
    [
        ("0.04", "&#181;m", 40),
        ("0.04", "&#xB5;m", 40),
        ("0.04", "\u03bcm", 40),
        ("0.04", None, 40),
        ("4e1", "nm", 40),
        ("400", "&#197;", 40),
        ("40000", "pm", 40),
        ("0.04", "micrometer", 40),
        ("4.0E-5", "mm", 40),
        ("0.00004", " mm ", 40),
        ("4e-14", "Mm", None),
        ("4", "pixel", None),
        ("4", "reference frame", None),
        ("-4", "nm", None),
        ("NaN", "nm", None),
    ],
)
@pytest.mark.parametrize("quote", "\"'")
def test_physical_sizes_are_read_however_they_are_written(size, unit, nm, quote, tmp_path):
    stated = {f"PhysicalSize{axis}": size for axis in "XYZ"} | {f"PhysicalSize{a}Unit": unit for a in "XYZ"}
    xml = ome(pixels(c=1, **stated)).replace('"', quote)
    path = write(tmp_path / "a.ome.tif", VOLUMES[0], xml)
    if nm is None:
        with pytest.raises(SourceError, match="--voxel-size Z Y X"):
            open_source(path)
    else:
        assert open_source(path).spec.frame.voxel_size_nm == (nm,) * 3


def test_units_of_ome_are_told_apart_by_their_letters():
    assert [unit_nm(u) for u in ("mm", "Mm", "pm", "Pm", "in", "km")] == [
        10**6,
        None,
        Fraction(1, 1000),
        None,
        25_400_000,
        10**12,
    ]


def test_comments_prefixes_and_other_elements_do_not_matter(tmp_path):
    xml = ome(pixels(c=1, channel='<Channel ID="c"/>'), more="<StructuredAnnotations/>")
    xml = xml.replace("<OME", "<!-- Pixels SizeZ='9' --><o:OME").replace("</OME", "</o:OME")
    for tag in ("Image", "Pixels", "TiffData", "Channel", "StructuredAnnotations"):
        xml = xml.replace(f"<{tag}", f"<o:{tag}").replace(f"</{tag}", f"</o:{tag}")
    xml = xml.replace("xmlns=", "xmlns:o=")
    path = write(tmp_path / "a.ome.tif", VOLUMES[0], xml)
    assert (read(path) == VOLUMES[0]).all()


def test_other_xml_is_left_alone(tmp_path):
    path = write(
        tmp_path / "a.tif", VOLUMES[0], "<?xml version='1.0'?><Metadata><HOME>GENOME</HOME></Metadata>"
    )
    assert (read(path, voxel_size_nm=(40, 5, 4)) == VOLUMES[0]).all()


class TestImages:
    """Several images in one file: the only volume, or the one that is asked for."""

    def file(self, path, *counts):
        pages, images, first = [], [], 0
        for i, (z, c) in enumerate(counts):
            n = z * c
            pages.append(np.full((n, Y, X), i, np.uint8))
            images.append(pixels(f'<TiffData IFD="{first}" PlaneCount="{n}"/>', z=z, c=c))
            first += n
        return write(path, np.concatenate(pages), ome(*images))

    def test_two_volumes_are_refused_by_name_until_one_is_chosen(self, tmp_path):
        path = self.file(tmp_path / "a.ome.tif", (4, 1), (5, 1))
        with pytest.raises(SourceError, match=r"2 images.*'image 1' \(5 Z.*--series"):
            open_source(path)
        assert open_source(path, series=0).spec.shape == (4, Y, X)
        assert (read(path, series=1) == np.ones((5, Y, X))).all()
        with pytest.raises(SourceError, match="2 images"):
            open_source(path, series=2)

    def test_pictures_beside_the_only_volume_are_passed_over(self, tmp_path):
        path = self.file(tmp_path / "a.ome.tif", (1, 1), (5, 1), (1, 2))
        assert (read(path) == np.ones((5, Y, X))).all()


ONE_FILE = '<TiffData><UUID FileName="{}">urn:uuid:{}</UUID></TiffData>'


class TestFiles:
    """Only files of the same folder are read; one that is not there is named."""

    def test_renamed_file_is_known_by_its_uuid(self, tmp_path):
        path = write(
            tmp_path / "new.ome.tif", VOLUMES[0], ome(pixels(ONE_FILE.format("old.ome.tif", 1), c=1))
        )
        assert (read(path) == VOLUMES[0]).all()

    def test_renamed_file_without_uuid_is_read_where_it_holds_all(self, tmp_path):
        xml = ome(pixels('<TiffData><UUID FileName="old.ome.tif"/></TiffData>', c=1), uuid=None)
        assert (read(write(tmp_path / "new.ome.tif", VOLUMES[0], xml)) == VOLUMES[0]).all()

    def test_file_that_is_not_there_is_named_and_is_missing_under_its_policy(self, tmp_path):
        runs = '<TiffData IFD="0" PlaneCount="3"/>' + ONE_FILE.format("part_2.ome.tif", 2).replace(
            "<TiffData", '<TiffData FirstZ="3"'
        )
        path = write(tmp_path / "part_1.ome.tif", VOLUMES[0, :3], ome(pixels(runs, c=1)))
        with pytest.raises(MissingDataError, match=r"section 3 .* in part_2\.ome\.tif, which is not there"):
            read(path)
        assert (read(path, missing="fill")[3:] == 0).all()
        assert (read(path, missing="fill")[:3] == VOLUMES[0, :3]).all()

    @pytest.mark.parametrize("name", ["../secret.ome.tif", "/tmp/secret.ome.tif", "C:\\\\secret.tif", ".."])
    def test_file_of_another_folder_is_refused(self, name, tmp_path):
        write(tmp_path / "secret.ome.tif", VOLUMES[0], ome(pixels(c=1)))
        (tmp_path / "here").mkdir()
        path = write(tmp_path / "here" / "a.ome.tif", VOLUMES[0], ome(pixels(ONE_FILE.format(name, 2), c=1)))
        with pytest.raises(SourceError, match="own folder"):
            open_source(path)

    def test_plane_that_no_tiff_data_has_is_missing(self, tmp_path):
        xml = ome(pixels('<TiffData IFD="0" PlaneCount="3"/>', c=1))
        path = write(tmp_path / "a.ome.tif", VOLUMES[0, :3], xml)
        with pytest.raises(MissingDataError, match="section 3"):
            read(path)

    @pytest.mark.parametrize("name", ["a.companion.ome", "b.ome.tif"])
    def test_metadata_of_a_set_may_be_in_a_file_of_its_own(self, name, tmp_path):
        runs = '<TiffData PlaneCount="3"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        runs += '<TiffData FirstZ="3" PlaneCount="2"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>'
        described, of_set = ome(pixels(runs, c=1), uuid="urn:uuid:9"), f'<BinaryOnly MetadataFile="{name}"/>'
        write(tmp_path / "a.ome.tif", VOLUMES[0, :3], ome(more=of_set))
        is_tiff = name == "b.ome.tif"
        write(
            tmp_path / "b.ome.tif",
            VOLUMES[0, 3:],
            described if is_tiff else ome(uuid="urn:uuid:2", more=of_set),
        )
        if not is_tiff:
            (tmp_path / name).write_text(described)
            assert (read(tmp_path / name) == VOLUMES[0]).all()
        assert (read(tmp_path / "a.ome.tif") == VOLUMES[0]).all()
        assert (read(tmp_path / "b.ome.tif") == VOLUMES[0]).all()
        if not is_tiff:
            (tmp_path / name).unlink()
            with pytest.raises(SourceError, match=f"in {name}, which is not there"):
                open_source(tmp_path / "a.ome.tif")

    def test_part_of_another_size_is_corrupt(self, tmp_path):
        runs = '<TiffData IFD="0" PlaneCount="3"/><TiffData FirstZ="3" PlaneCount="2">'
        runs += '<UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>'
        path = write(tmp_path / "a.ome.tif", VOLUMES[0, :3], ome(pixels(runs, c=1)))
        write(tmp_path / "b.ome.tif", VOLUMES[0, 3:, 1:], ome(uuid="urn:uuid:2"))
        with pytest.raises(CorruptDataError, match=r"b\.ome\.tif"):
            read(path)


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (ome(pixels()), "3 channels.*--channel 0 to 2"),
        (ome(pixels(t=3, c=1)), r"5 sections and 3 frames|3 frames .* and 5 sections"),
        (ome(pixels(z=1, t=15, c=1)), "15 frames.*one slice.*Slices"),
        (ome(pixels(z=1, c=15)), "15 channels and one slice"),
        (ome(pixels(z=6, c=3)), "15 pages, but states 18 planes"),
        (ome(pixels(z=4, c=3)), "15 pages, but states 12 planes"),
        (ome(pixels(c=3, z=15, channel='<Channel SamplesPerPixel="3"/>')), "RGB"),
        (ome(pixels(z=15, c=1, order="ZYXCT")), "DimensionOrder 'ZYXCT'"),
        (ome(pixels(z=15, c=1, order="XYZZT")), "DimensionOrder"),
        (ome(pixels(z="many", c=1)), "SizeZ 'many'"),
        (ome(pixels(z=0, c=1)), "SizeZ '0'"),
        (ome(pixels(z=10**9, c=1)), "1000000000 planes"),
        (ome(pixels(z=15, c=1, SizeX=9)), "states images of"),
        (ome(pixels('<TiffData IFD="3" PlaneCount="99"/>', z=15, c=1)), "cut off"),
        (
            ome(pixels('<TiffData IFD="0"/><TiffData FirstZ="1" IFD="0"/>', z=15, c=1)),
            "same page for two planes",
        ),
        (ome(pixels('<TiffData IFD="0"/><TiffData IFD="1"/>', z=15, c=1)), "two pages for plane 0"),
        (ome(pixels('<TiffData FirstZ="15" IFD="0"/>', z=15, c=1)), "Z 15"),
        (ome(pixels('<TiffData FirstZ="-1" IFD="0"/>', z=15, c=1)), "FirstZ '-1'"),
        (ome(), "0 images"),
        (ome(pixels())[:-9], "not well formed"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + ome(pixels())[21:], "document type"),
        ("<OME>&lol;</OME>", "not well formed"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(xml, words, tmp_path):
    n = prod((Z, C))
    path = write(tmp_path / "a.ome.tif", position_coded((n, Y, X)), xml)
    with pytest.raises(SourceError, match=words):
        open_source(path)

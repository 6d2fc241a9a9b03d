"""Datasets: faces on disk. Identity folders, tar shards, RecordIO, manifests, codecs; ``open(path)`` reads them all."""

from .bin_pairs import open_pairs, read_bin, write_bin
from .codecs import CODEC_NAMES, DEFAULT_CODEC, Codec, codec, codec_from_dict
from .convert import convert_dataset
from .convert_pairs import convert_pairs
from .dataset import CARD_NAME, PLAN_NAME, FaceDataset, open
from .folders import natural_key, scan_identity_folders
from .ijb import IjbMeta, read_ijb
from .images import IMAGE_SUFFIXES, check_rgb, is_image_name, load_rgb, resize_rgb
from .manifest import MANIFEST_NAME, Manifest, read_rows, write_rows
from .pair_lists import PairImages, PairList, listed_images, read_pairs, write_pairs
from .record_sets import RecordSet, read_record_set
from .recordio import Record, RecordWriter, read_record, scan_records
from .shards import Member, pack, read_range, sample_members, scan_shard, write_shard

__all__ = ["CARD_NAME", "CODEC_NAMES", "DEFAULT_CODEC", "IMAGE_SUFFIXES", "MANIFEST_NAME", "PLAN_NAME", "Codec",
           "FaceDataset", "IjbMeta", "Manifest", "Member", "PairImages", "PairList", "Record", "RecordSet",
           "RecordWriter", "check_rgb", "codec", "codec_from_dict", "convert_dataset", "convert_pairs",
           "is_image_name", "listed_images", "load_rgb", "natural_key", "open", "open_pairs", "pack", "read_bin",
           "read_ijb", "read_pairs", "read_range", "read_record", "read_record_set", "read_rows", "resize_rgb",
           "sample_members", "scan_identity_folders", "scan_records", "scan_shard", "write_bin", "write_pairs",
           "write_rows", "write_shard"]

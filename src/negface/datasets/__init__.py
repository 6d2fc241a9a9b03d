"""Datasets: faces on disk. Identity folders, tar shards, manifests, image codecs; ``open(path)`` reads them all."""

from .codecs import CODEC_NAMES, DEFAULT_CODEC, Codec, codec, codec_from_dict
from .dataset import CARD_NAME, PLAN_NAME, FaceDataset, open
from .folders import natural_key, scan_identity_folders
from .images import IMAGE_SUFFIXES, check_rgb, is_image_name, load_rgb, resize_rgb
from .manifest import MANIFEST_NAME, Manifest, read_rows, write_rows
from .shards import Member, pack, read_range, sample_members, scan_shard, write_shard

__all__ = ["CARD_NAME", "CODEC_NAMES", "DEFAULT_CODEC", "IMAGE_SUFFIXES", "MANIFEST_NAME", "PLAN_NAME", "Codec",
           "FaceDataset", "Manifest", "Member", "check_rgb", "codec", "codec_from_dict", "is_image_name", "load_rgb",
           "natural_key", "open", "pack", "read_range", "read_rows", "resize_rgb", "sample_members",
           "scan_identity_folders", "scan_shard", "write_rows", "write_shard"]

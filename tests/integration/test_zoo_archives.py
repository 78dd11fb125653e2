"""What the service reads in the files that torch itself writes."""

import io

import torch
from torch import nn

from service.store.blobs import Blobs
from service.zoo.read import Zoo


def test_an_archive_of_torch_export_tells_its_parameters(blobs: Blobs):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(model, (torch.zeros(2, 3),)), buffer)
    blobs.put_bytes("m.pt2", buffer.getvalue())

    zoo = Zoo(blobs)
    [found] = zoo.page(f"s3://{blobs.bucket}/", limit=10, after=None).data
    zoo.close()

    assert found.dtypes == {"F32": 12 + 4 + 4 + 4 + 4 + 4, "I64": 1}
    assert (found.readable, found.reason) == (True, None)

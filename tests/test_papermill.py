"""Plain papermill, as people call it who have pipelines of their own."""

import boto3
import nbformat
import papermill
import pytest
from click.testing import CliRunner
from moto import mock_aws
from papermill.cli import papermill as command

from negmeta_utils.studies import study_file


@pytest.fixture
def bucket(monkeypatch):
    """An S3 of this process alone."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        bucket = boto3.resource("s3").create_bucket(Bucket="results")
        yield bucket


def test_the_executed_notebook_goes_to_s3_and_its_tables_to_a_folder(bucket, tmp_path):
    """The command, in this process, because that is where the S3 is; papermill's own parameters
    are let through."""
    notebook = study_file.NOTEBOOKS / "02_alpha_distribution.ipynb"
    target = "s3://results/2026/02.ipynb"
    arguments = [str(notebook), target, "--inject-paths", "-p", "out_dir", str(tmp_path)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    (stored,) = bucket.objects.all()
    executed = nbformat.reads(stored.get()["Body"].read().decode(), 4)
    assert executed.metadata.papermill.exception is None
    assert executed.metadata.papermill.parameters == {
        "out_dir": str(tmp_path),
        "PAPERMILL_INPUT_PATH": str(notebook),
        "PAPERMILL_OUTPUT_PATH": target,
    }
    assert "negative mean rate" in "".join(
        output.get("text", "") for cell in executed.cells for output in cell.get("outputs", [])
    )
    assert {"table1.csv", "figure6.png", "figure6.svg"} <= {p.name for p in tmp_path.iterdir()}


def test_a_notebook_from_s3_shows_its_parameters(bucket):
    notebook = study_file.NOTEBOOKS / "03_feature_adaptation.ipynb"
    bucket.upload_file(str(notebook), "03.ipynb")
    shown = papermill.inspect_notebook("s3://results/03.ipynb")
    assert shown["n_episodes"]["default"] == "None"
    assert shown["eval_seed"]["default"] == "0"

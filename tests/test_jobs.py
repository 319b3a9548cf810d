"""ser/jobs.py: how the callers of a job runner name a job's number."""

import pytest

from ser.jobs import job_name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["python", "data/all"], "JOB"),
        (["/scratch/JOBS/python", "data/all"], "JOB_"),
        (["python", "/a/JOB_", "JOB"], "JOB__"),
        (["job", "J OB"], "JOB"),
    ],
)
def test_no_word_has_the_name(words, name):
    assert job_name(*words) == name

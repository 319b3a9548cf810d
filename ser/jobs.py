"""Calling the job runners, Kaldi's and ours."""


def job_name(*words: str) -> str:
    """A placeholder for the job's number that occurs in none of these words: JOB, JOB_, ...

    A runner replaces it wherever it occurs, even within a folder's name or the path of Python itself.
    """
    name = "JOB"
    while any(name in word for word in words):
        name += "_"
    return name

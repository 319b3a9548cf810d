"""What the job runners, Kaldi's and ours, ask of those who call them."""


def job_name(*words: str) -> str:
    """The name that stands for a job's number beside these words: JOB, or one that none of them has.

    A runner puts the number wherever the name stands, be it in a folder's name or the path of Python itself.
    """
    name = "JOB"
    while any(name in word for word in words):
        name += "_"
    return name

"""The catalog: what can be run (task packages, workflows) and on what (datasets).

    documents       JSON that comes from outside, read within bounds
    manifest        what a task package says of its tasks
    package_spec    what a person asks to collect: a requirement, a wheel, a folder
    installer       uv: run, reported, its failures in words
    environment     the environments on disk: one per package, version and content
    child_process   processes that leave nothing behind (mortal)
    inspection      an environment asked through its own interpreter (probe, preload)
    packages        task packages and tasks as rows of the store
    collect         from what was asked for to rows, through an environment
    arguments       a workflow task's arguments against the manifest's JSON Schema
    task_reference  how workflow documents name tasks, and which collected task is meant
    workflows       import and export of workflows
    datasets        image lists: create, extend, export
    scan            OME-Zarr images found below a folder

Functions that take a session flush, and their caller commits. Those that also deal with environments take the store,
so that no transaction is open while uv works.
"""

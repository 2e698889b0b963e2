"""Refuses an answer that would break the study, before anything of the study is written.

`study_answers.py` does so when an answer is given; here come those of `cookiecutter --replay`.
"""

import json
import keyword
import re
import sys
import unicodedata

# JSON in a raw string: whatever an answer holds, its quotes are escaped, and it stays data.
ANSWERS = r"""
{
    "project_name": {{ cookiecutter.project_name | tojson }},
    "project_slug": {{ cookiecutter.project_slug | tojson }},
    "description": {{ cookiecutter.description | tojson }},
    "author": {{ cookiecutter.author | tojson }}
}
"""
EXAMPLES = {
    "project_name": "My Study",
    "description": "How small a network still reads handwritten digits?",
    "author": "Your Name",
}
# No underscore at the end and none doubled: the build backend looks for the package without them.
SLUG = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
MAX_SLUG = 40  # so that no line of the study grows too long
# What no TOML or YAML string may hold: control characters, line separators, lone surrogates.
CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff"
QUOTES = r"""/\\'"`"""

# The names that the study's environment holds, as imports and as packages: equals hide each other.
DEPENDENCIES = """
    absl absl_py aiobotocore aiohappyeyeballs aiohttp aiohttp_retry aioitertools aiosignal alembic
    amqp annotated_doc annotated_types antlr4 antlr4_python3_runtime anyio anywidget appdirs
    ast_serialize astroid asttokens asyncssh atpublic attr attrs bcrypt billiard black blackd
    blib2to3 blinker botocore cachetools celery certifi cffi cfgv charset_normalizer click
    click_didyoumean click_plugins click_repl cloudpickle colorama colorlog comm configobj contourpy
    coreweave_evaluations cryptography cuda cuda_bindings cuda_pathfinder cuda_toolkit cwevals
    cycler databricks databricks_sdk dateutil detect_secrets dictdiffer dill diskcache distlib
    distro docker docutils dotenv dpath drawdata dulwich dvc dvc_data dvc_http dvc_objects
    dvc_render dvc_s3 dvc_ssh dvc_studio_client dvc_task editables entrypoints execnet executing
    fastapi filelock flask flask_cors flatten_dict flufl flufl_lock fonttools frozenlist fsspec
    functorch funcy git gitdb gitpython google google_auth googleapis_common_protos grandalf
    graphene graphql graphql_core graphql_relay greenlet grimp grpc grpcio gto gunicorn h11
    hatchling httpcore httpx huey hydra hydra_core hydra_joblib_launcher hydra_plugins identify idna
    import_linter importlib_metadata importlinter iniconfig ipython_pygments_lexers isort isympy
    iterative_telemetry itsdangerous jedi jinja2 jmespath joblib jupyterlab_widgets kiwisolver kombu
    librt loro mako markdown markdown_it markdown_it_py markupsafe matplotlib matplotlib_inline
    mccabe mdurl ml_dtypes mlflow_skinny mlflow_tracing mpl_toolkits mpmath msgspec multidict
    multipart mypy mypy_extensions mypyc narwhals networkx nodeenv numpy nvidia nvidia_nvjitlink
    omegaconf onnx_ir onnxscript opentelemetry opentelemetry_api
    opentelemetry_exporter_http_transport opentelemetry_exporter_otlp_common
    opentelemetry_exporter_otlp_proto_common opentelemetry_exporter_otlp_proto_http
    opentelemetry_proto opentelemetry_sdk opentelemetry_semantic_conventions orjson packaging parso
    pathspec pexpect pil pillow pip pkg_resources platformdirs pluggy pre_commit prettytable
    prompt_toolkit propcache protobuf psutil psygnal ptyprocess public pure_eval py pyasn1
    pyasn1_modules pycparser pydantic pydantic_core pydantic_settings pydevd_plugins pydot pygit2
    pygments pygtrie pylab pylint pymdown_extensions pymdownx pyparsing pytest pytest_xdist
    python_dateutil python_discovery python_dotenv python_multipart pytokens pywin32 pyyaml pyzmq
    requests rich ruamel ruamel_yaml s3fs scipy scmrepo semver setuptools shortuuid shtab six skops
    smmap sniffio sqlalchemy sqlparse sqltrie sshfs stack_data starlette submitit sympy tabulate
    tensorboard_data_server threadpoolctl tomlkit torch torchgen tqdm traitlets triton
    trove_classifiers typing_extensions typing_inspection tzdata tzlocal urllib3 uv uvicorn validate
    vine virtualenv voluptuous waitress wcwidth websockets werkzeug wheel widgetsnbextension
    wigglystuff wrapt xdist xxhash yaml yarl zc zc_lockfile zipp zmq
""".split()
# What studies import sooner or later: on the day that they do, a study of that name would hide it.
LIKELY = """
    accelerate aim albumentations altair anthropic apex arviz bitsandbytes bokeh captum catboost
    comet_ml cupy cv2 dask datasets deepspeed dgl diffusers duckdb einops equinox evaluate faiss
    fastai flash_attn flax gensim gradio gym gymnasium h5py haiku huggingface_hub ignite imageio
    imblearn ipykernel ipython ipywidgets jax jaxlib jaxtyping jupyter jupyterlab keras kornia
    langchain librosa lightgbm lightning lime lmdb marimo ml_collections mlflow monai neptune nibabel
    nltk notebook numba onnx onnxruntime openai opencv_python optax optuna pandas papermill peft
    plotly polars pyarrow pydicom pymc pyro pytorch_lightning rasterio ray rdkit sacred safetensors
    scikit_image scikit_learn seaborn sentence_transformers sentencepiece shap skimage sklearn skorch
    soundfile spacy statsmodels streamlit tables tensorboard tensorboardx tensordict tensorflow tiktoken
    timm tokenizers torch_geometric torchao torchaudio torchdata torchmetrics torchrl torchtext
    torchvision transformers trl umap vllm wandb webdataset xarray xformers xgboost zarr
""".split()
# Files and folders of the study and of its tools; a script there would import itself.
STUDY = """
    build citation compare conf conftest data demo dist dockerfile docs dvc env harness license
    makefile metrics models multirun notebooks outputs predict prepare pyproject readme report
    reproduce requirements results run runs setup src stages test_configs test_data test_environment
    test_metrics test_models test_notebooks test_pipeline test_records test_reproduce test_run
    test_training tests venv
""".split()
# What Python takes for itself on one of 3.11 to 3.15 only, or without listing it.
UNLISTED_PYTHON = """
    aifc annotationlib asynchat asyncore audioop cgi cgitb chunk compression crypt distutils imghdr
    imp lazy lib2to3 mailcap msilib nis nntplib ossaudiodev pipes profiling smtpd sndhdr spwd sunau
    telnetlib test type uu xdrlib
""".split()
DEVICES = [
    *"aux con nul prn".split(),
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
]
RESERVED = {
    "is a keyword of Python": [*keyword.kwlist, *keyword.softkwlist],
    "is a name that Python itself uses": [*sys.stdlib_module_names, *UNLISTED_PYTHON],
    "is a package that the study uses": DEPENDENCIES,
    "is a package that the study may come to use": LIKELY,
    "is a device on Windows, and no folder": DEVICES,
    "is a file or a folder of the study": STUDY,
    "is the study's console command": ["study"],
    "is no name in YAML but a value": "false inf n nan no none null off on true y yes".split(),
}


def fault_of_slug(slug: str) -> str:
    """Returns why the study's package cannot be called so, or nothing."""
    if not SLUG.fullmatch(slug):
        return "is no lowercase name (a-z, then 0-9 too, and single underscores between)"
    if len(slug) > MAX_SLUG:
        return f"is longer than {MAX_SLUG} letters"
    return next((reason for reason, names in RESERVED.items() if slug in names), "")


def fault_of_text(key: str, text: str) -> str:
    """Returns why the line cannot stand in TOML, YAML and Markdown, or nothing."""
    if not text.strip():
        return "is blank"
    if re.search(f"[{CONTROL}]", text):
        return "holds a line break or another control character"
    if key == "project_name" and re.search(f"[{QUOTES}]", text):
        return "holds a quote, a slash or a backslash"
    if key == "project_name" and text != text.strip():
        return "begins or ends with a space"
    return ""


def valid_slug(answer: str) -> str:
    """Returns the valid slug that comes nearest to the answer."""
    plain = unicodedata.normalize("NFKD", answer).encode("ascii", "ignore").decode().lower()
    plain = re.sub("[^a-z0-9]+", "_", plain).strip("_").lstrip("0123456789_")
    names = (plain, f"{plain}_study", plain[:MAX_SLUG].strip("_"), "my_study")
    return next(name for name in names if not fault_of_slug(name))


def valid_text(key: str, answer: str) -> str:
    """Returns the valid line that comes nearest to the answer."""
    unfit = f"[{CONTROL}{QUOTES if key == 'project_name' else ''}]"
    return " ".join(re.sub(unfit, " ", answer).split()) or EXAMPLES[key]


def valid(key: str, answer: str) -> str:
    """Returns the valid answer that comes nearest to the one given."""
    return valid_slug(answer) if key == "project_slug" else valid_text(key, answer)


def complaint(answers: dict[str, str]) -> str:
    """Returns one line about the first answer that will not do, or nothing."""
    for key, answer in answers.items():
        slug = key == "project_slug"
        fault = fault_of_slug(answer) if slug else fault_of_text(key, answer)
        if fault:
            return f"{key} {answer!r} {fault}; this would do: {valid(key, answer)}"
    return ""


if __name__ == "__main__":
    sys.exit(complaint(json.loads(ANSWERS)) or None)

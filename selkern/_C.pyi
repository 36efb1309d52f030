from typing import TypedDict

class _BuildInfo(TypedDict):
    version: str
    torch: str
    compiler: str
    cuda: str | None
    cuda_architectures: list[str]
    cpu_capabilities: list[str]

def build_info() -> _BuildInfo: ...
def cpu_capability() -> str: ...
def supported_cpu_capabilities() -> list[str]: ...
def set_cpu_capability(name: str) -> None: ...

"""As much of ttnn as the direct engine uses: one chip, which can be open once."""

import tiny_model

bfloat8_b = "bfloat8_b"
opened = 0
closed = 0


class MeshShape:
    def __init__(self, rows, columns):
        self.size = rows * columns


class DispatchCoreConfig:
    def __init__(self, type=None, axis=None):
        self.type, self.axis = type, axis


class MeshDevice:
    is_open = True

    def check(self):
        if not self.is_open:
            raise RuntimeError("TT_FATAL: the device is not open")


_current = MeshDevice()
_current.is_open = False


def open_mesh_device(
    mesh_shape=None,
    l1_small_size=0,
    trace_region_size=0,
    num_command_queues=1,
    dispatch_core_config=None,
    offset=None,
    physical_device_ids=(),
    worker_l1_size=0,
):
    global opened, _current
    tiny_model.step("open_mesh_device", trace_region_size=trace_region_size, num_command_queues=num_command_queues)
    if not isinstance(mesh_shape, MeshShape) or not isinstance(dispatch_core_config, DispatchCoreConfig):
        raise TypeError("open_mesh_device(): incompatible function arguments")
    if mesh_shape.size != 1:
        raise RuntimeError("TT_FATAL: Requested more devices than available")
    if _current.is_open:
        raise RuntimeError("Waiting for lock 'CHIP_IN_USE_0_PCIe'")
    opened += 1
    _current = MeshDevice()
    return _current


def close_mesh_device(mesh_device):
    global closed
    mesh_device.check()
    tiny_model.step("close_mesh_device")
    mesh_device.is_open = False
    closed += 1

"""As much of torch as the direct engine and the stand-in checkouts use. What is missing here must not be used there."""


class Tensor:
    """Nested lists with a shape."""

    def __init__(self, data):
        self._data = data

    @property
    def shape(self):
        shape, data = [], self._data
        while isinstance(data, list):
            shape.append(len(data))
            data = data[0]
        return tuple(shape)

    def __getitem__(self, index):
        if not isinstance(index, int) or not isinstance(self._data, list):
            raise TypeError(f"cannot index a tensor of shape {self.shape} with {index!r}")
        return Tensor(self._data[index])

    def item(self):
        data = self._data
        while isinstance(data, list):
            if len(data) != 1:
                raise RuntimeError(f"a Tensor with {len(data)} elements cannot be converted to Scalar")
            data = data[0]
        return data

    def tolist(self):
        return self._data


def tensor(data):
    return Tensor(data)

"""One engine with one network: answers each line `run` with the milliseconds of a run. Started by `margay bench`."""

import json
import sys
import time

import numpy as np


def onnxruntime(path, shape, threads, precision):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that go on spinning after a run would disturb the engine whose turn is next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return ort.__version__, lambda image: session.run(None, {"image": image})[0]


def openvino(path, shape, threads, precision):
    import openvino as ov

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    request = ov.Core().compile_model(path, "CPU", settings).create_infer_request()
    return ov.__version__.split("-")[0], lambda image: request.infer([image])[0]


def deepsparse(path, shape, threads, precision):
    import deepsparse as ds

    engine = ds.compile_model(path, batch_size=shape[0], num_cores=threads)
    return ds.__version__, lambda image: engine.run([image])[0]


def quantised(path, image):
    """Static int8 with QDQ nodes, calibrated on one input: for its speed, not for its answers."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = [{"image": image}]

        def get_next(self):
            return self.left.pop() if self.left else None

    small = path.replace(".onnx", "-int8.onnx")
    quantize_static(
        path,
        small,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return small


def main():
    engine, precision, path, input_path, threads, *shape = sys.argv[1:]
    shape = [int(extent) for extent in shape]
    image = np.fromfile(input_path, dtype="<f4").reshape(shape)
    # What libraries print must not reach the other end of the pipe.
    answers, sys.stdout = sys.stdout, sys.stderr
    if precision == "int8":
        path = quantised(path, image)
    version, run = globals()[engine](path, shape, int(threads), precision)
    logits = np.asarray(run(image), dtype=np.float64).reshape(-1)
    print(json.dumps({"version": version, "logits": logits.tolist()}), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() != "run":
            break
        begun = time.perf_counter()
        run(image)
        print((time.perf_counter() - begun) * 1e3, file=answers, flush=True)


if __name__ == "__main__":
    main()

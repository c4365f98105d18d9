"""The conftest.py of a demo home: the options of tt-metal's demo, declared as it declares them."""


def pytest_addoption(parser):
    parser.addoption("--input_prompts", action="store", type=str)
    parser.addoption("--instruct", action="store", type=int)
    parser.addoption("--repeat_batches", action="store", type=int)
    parser.addoption("--max_seq_len", action="store", type=int)
    parser.addoption("--batch_size", action="store", type=int)
    parser.addoption("--max_generated_tokens", action="store", type=int)
    parser.addoption("--data_parallel", action="store", type=int)
    parser.addoption("--paged_attention", action="store", type=bool)
    parser.addoption("--page_params", action="store", type=dict)
    # type=dict refuses every text: the command line cannot carry sampling parameters.
    parser.addoption("--sampling_params", action="store", type=dict)
    parser.addoption("--stop_at_eos", action="store", type=int)
    parser.addoption("--optimizations", action="store", type=str)
    parser.addoption("--decoder_config_file", action="store", type=str)

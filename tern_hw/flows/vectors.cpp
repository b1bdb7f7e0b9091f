// Drives a block of at most 64 bits in and out with the words of a file, one a cycle, and writes
// what comes out of it, one word a cycle. usage: vectors IN OUT

#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

#include "Vvectors.h"

namespace {

constexpr std::size_t kWords = 1 << 16;

bool run(std::FILE* in, std::FILE* out) {
    const std::unique_ptr<VerilatedContext> context{new VerilatedContext};
    const std::unique_ptr<Vvectors> block{new Vvectors{context.get(), ""}};
    std::vector<std::uint64_t> words(kWords);
    std::size_t count;
    while ((count = std::fread(words.data(), sizeof words[0], kWords, in)) != 0) {
        for (std::size_t at = 0; at < count; ++at) {
            block->clk = 0;
            block->words_in = words[at];
            block->eval();
            words[at] = block->words_out;
            block->clk = 1;
            block->eval();
        }
        if (std::fwrite(words.data(), sizeof words[0], count, out) != count) return false;
    }
    block->final();
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    std::FILE* in = std::fopen(argv[1], "rb");
    std::FILE* out = std::fopen(argv[2], "wb");
    if (!in || !out || !run(in, out) || std::fclose(out) != 0) {
        std::perror("vectors");
        return 1;
    }
    return 0;
}

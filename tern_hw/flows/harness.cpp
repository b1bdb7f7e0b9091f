// Drives one emitted array at compiled speed: clock, AXI4-Lite, four AXI4-Streams, seeded and
// periodic stalls.
//
//     array INPUT      reads a header and the beats from the file INPUT,
//                      writes one record per event to standard output (tern_hw/flows/harness.py)
//
// Each job is: the control writes, the streams until every result has come, a poll of one register
// until it says "idle", the control reads. The model is built as class Varray, its inputs behind
// registers (tern_hw/flows/wrapper.py): what is set before an edge is what the array sees after it,
// and the outputs are always those of the present cycle. Ports have the same bytes in memory
// whatever their C++ type (little-endian host), so beats are copied in and out.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <chrono>
#include <memory>
#include <vector>

#include "Varray.h"
#include "verilated.h"

namespace {

// After every `beats` transfers of a packet, `pause` cycles without one.
struct Period {
    uint64_t beats, pause;
    uint64_t after(uint64_t taken) const { return taken % beats ? 0 : pause; }
};

struct Header {
    uint64_t magic, jobs, outputs;
    uint64_t activation_beats, weight_beats, scale_beats;  // of one job
    uint64_t activation_bytes, weight_bytes, scale_bytes, result_bytes;  // of one beat
    uint64_t seed, idle, backpressure;  // probabilities in units of 2**-32
    uint64_t limit_cycles;              // of one job
    uint64_t heartbeat_cycles;
    uint64_t writes, reads;             // control accesses before and after each job
    uint64_t poll_address, poll_mask, poll_value;
    uint64_t reset_cycles;
    Period activation, weight, scale, result;
};
constexpr uint64_t MAGIC = 0x31424f4a4e524554;  // "TERNJOB1"

struct Event {
    uint64_t kind;  // 'P'rogress, 'J'ob done, 'H'ang, 'E'nd
    uint64_t job, cycle;
    uint64_t activations, weights, scales, results;  // beats transferred in this job
    uint64_t job_cycles;    // from the start, one cycle after its write, to the last result
    uint64_t bad_last;      // results whose TLAST was wrong
    uint64_t unstable;      // results withdrawn or changed while they waited
    uint64_t surplus;       // results after the last
    uint64_t nanoseconds;   // since the first cycle
};

// Marsaglia's xorshift64*: one of these per stream, so that streams stall independently.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ULL | 1) {
        for (int i = 0; i < 8; ++i) draw();
    }
    // True with probability p / 2**32.
    bool hits(uint64_t p) { return p && draw() < p; }

private:
    uint64_t draw() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return (state_ * 0x2545f4914f6cdd1dULL) >> 32;
    }
    uint64_t state_;
};

// A stream of whole packets, of `beats` beats each. AXI: once valid, a beat stays until taken.
class Source {
public:
    Source(uint64_t beats, uint64_t bytes, uint64_t idle, Period period, uint64_t seed)
        : beats_(beats), bytes_(bytes), idle_(idle), period_(period), random_(seed) {}

    void packet(const uint8_t* data) {
        data_ = data;
        taken_ = pause_ = 0;
    }
    uint64_t taken() const { return taken_; }
    bool done() const { return taken_ == beats_; }

    // The present cycle ends: was the beat taken, and what is on offer in the next?
    template <class Data, class Bit>
    void clocked(bool ready, Data& data, Bit& valid, Bit& last) {
        if (valid_ && ready) {
            valid_ = false;
            pause_ = period_.after(++taken_);
        }
        if (pause_) {
            --pause_;
        } else if (!valid_ && !done() && !random_.hits(idle_)) {
            valid_ = true;
            std::memcpy(&data, data_ + taken_ * bytes_, bytes_);
            last = taken_ + 1 == beats_;
        }
        valid = valid_;
    }

private:
    uint64_t beats_, bytes_, idle_;
    Period period_;
    Random random_;
    const uint8_t* data_ = nullptr;
    uint64_t taken_ = 0, pause_ = 0;
    bool valid_ = false;
};

// Takes results and watches the stream's rules.
class Sink {
public:
    Sink(uint64_t outputs, uint64_t bytes, uint64_t backpressure, Period period, uint64_t seed)
        : outputs_(outputs), bytes_(bytes), backpressure_(backpressure), period_(period),
          random_(seed), store_(outputs * bytes) {}

    void restart() { taken_ = bad_last_ = unstable_ = surplus_ = pause_ = 0; }
    bool done() const { return taken_ == outputs_; }
    // The present cycle ends: take the result, if there is one; returns ready for the next.
    template <class Data>
    bool clocked(bool valid, bool last, const Data& data) {
        const bool ready = ready_;
        uint8_t now[8] = {};
        std::memcpy(now, &data, bytes_);
        if (waiting_ && (!valid || last != waiting_last_ || std::memcmp(now, waiting_data_, 8)))
            ++unstable_;
        waiting_ = valid && !ready;
        waiting_last_ = last;
        std::memcpy(waiting_data_, now, 8);
        if (valid && ready) take(last, now);
        ready_ = !random_.hits(backpressure_) && !pause_;
        if (pause_) --pause_;
        return ready_;
    }
    void report(Event& event) const {
        event.results = taken_;
        event.bad_last = bad_last_;
        event.unstable = unstable_;
        event.surplus = surplus_;
    }
    const std::vector<uint8_t>& store() const { return store_; }

private:
    void take(bool last, const uint8_t* data) {
        if (done()) {
            ++surplus_;
            return;
        }
        std::memcpy(store_.data() + taken_ * bytes_, data, bytes_);
        bad_last_ += last != (taken_ + 1 == outputs_);
        pause_ = period_.after(++taken_);
    }

    uint64_t outputs_, bytes_, backpressure_;
    Period period_;
    Random random_;
    std::vector<uint8_t> store_;
    uint64_t taken_ = 0, bad_last_ = 0, unstable_ = 0, surplus_ = 0, pause_ = 0;
    uint8_t waiting_data_[8] = {};
    bool waiting_ = false, waiting_last_ = false, ready_ = false;
};

// Our side (valid or ready) of one AXI4-Lite channel, which is up until the handshake.
class Channel {
public:
    void ask() { asked_ = true; }
    bool asked() const { return asked_; }

    // The present cycle ends: true if the handshake happened; sets our signal for the next.
    template <class Bit>
    bool step(bool theirs, Bit& ours) {
        const bool happened = up_ && theirs;
        if (happened) asked_ = false;
        ours = up_ = asked_;
        return happened;
    }

private:
    bool asked_ = false, up_ = false;
};

[[noreturn]] void die(const char* message) {
    std::fprintf(stderr, "%s\n", message);
    std::exit(3);
}

struct Hang {};

class Bench {
public:
    explicit Bench(const char* path) {
        FILE* file = std::fopen(path, "rb");
        if (!file) die("input cannot be opened");
        take(file, &header_, sizeof header_);
        if (header_.magic != MAGIC) die("input is no job file");
        writes_.resize(2 * header_.writes);
        reads_.resize(header_.reads);
        take(file, writes_.data(), writes_.size() * 8);
        take(file, reads_.data(), reads_.size() * 8);
        activations_.resize(header_.jobs * header_.activation_beats * header_.activation_bytes);
        weights_.resize(header_.weight_beats * header_.weight_bytes);
        scales_.resize(header_.scale_beats * header_.scale_bytes);
        take(file, activations_.data(), activations_.size());
        take(file, weights_.data(), weights_.size());
        take(file, scales_.data(), scales_.size());
        std::fclose(file);
        const Header& h = header_;
        activation_.reset(
            new Source(h.activation_beats, h.activation_bytes, h.idle, h.activation, 4 * h.seed));
        weight_.reset(new Source(h.weight_beats, h.weight_bytes, h.idle, h.weight, 4 * h.seed + 1));
        scale_.reset(new Source(h.scale_beats, h.scale_bytes, h.idle, h.scale, 4 * h.seed + 2));
        sink_.reset(new Sink(h.outputs, h.result_bytes, h.backpressure, h.result, 4 * h.seed + 3));
    }

    int run() {
        start_ = std::chrono::steady_clock::now();
        reset();
        try {
            for (job_ = 0; job_ < header_.jobs; ++job_) job();
        } catch (const Hang&) {
            emit('H');
            return 0;
        }
        emit('E');
        top_.final();
        return 0;
    }

private:
    static void take(FILE* file, void* target, size_t bytes) {
        if (bytes && std::fread(target, 1, bytes, file) != bytes) die("input is too short");
    }

    void reset() {
        top_.rst = 1;
        for (uint64_t i = 0; i < header_.reset_cycles; ++i) clock();
        top_.rst = 0;
        clock();
    }

    void job() {
        const uint64_t bytes = header_.activation_beats * header_.activation_bytes;
        sink_->restart();
        activation_->packet(activations_.data() + job_ * bytes);
        weight_->packet(weights_.data());
        scale_->packet(scales_.data());
        begun_ = cycle_;
        for (uint64_t i = 0; i < header_.writes; ++i)
            write(uint32_t(writes_[2 * i]), uint32_t(writes_[2 * i + 1]));
        while (!sink_->done() || !activation_->done() || !weight_->done() || !scale_->done()) cycle();
        while ((read(uint32_t(header_.poll_address)) & header_.poll_mask) != header_.poll_value) {}
        values_.clear();
        for (uint64_t address : reads_) values_.push_back(read(uint32_t(address)));
        emit('J');
        put(values_.data(), values_.size() * 8);
        put(sink_->store().data(), sink_->store().size());
        std::fflush(stdout);
    }

    // One clock cycle: see who transfers, set the next cycle's inputs, clock.
    void cycle() {
        activation_->clocked(top_.s_axis_activation_tready, top_.s_axis_activation_tdata,
                             top_.s_axis_activation_tvalid, top_.s_axis_activation_tlast);
        weight_->clocked(top_.s_axis_weight_tready, top_.s_axis_weight_tdata,
                         top_.s_axis_weight_tvalid, top_.s_axis_weight_tlast);
        scale_->clocked(top_.s_axis_scale_tready, top_.s_axis_scale_tdata,
                        top_.s_axis_scale_tvalid, top_.s_axis_scale_tlast);
        const bool running = !sink_->done();
        top_.m_axis_result_tready = sink_->clocked(
            top_.m_axis_result_tvalid, top_.m_axis_result_tlast, top_.m_axis_result_tdata);
        if (running && sink_->done()) finished_ = cycle_;
        control();
        clock();
        if (cycle_ - begun_ > header_.limit_cycles) throw Hang();
        if (cycle_ % header_.heartbeat_cycles == 0) {
            emit('P');
            std::fflush(stdout);
        }
    }

    // AXI4-Lite: a handshake ends with the present cycle, and its signal falls.
    void control() {
        aw_.step(top_.s_axil_awready, top_.s_axil_awvalid);
        if (w_.step(top_.s_axil_wready, top_.s_axil_wvalid)) started_ = cycle_;
        b_.step(top_.s_axil_bvalid, top_.s_axil_bready);
        ar_.step(top_.s_axil_arready, top_.s_axil_arvalid);
        if (r_.step(top_.s_axil_rvalid, top_.s_axil_rready)) read_data_ = top_.s_axil_rdata;
    }

    void clock() {
        top_.clk = 1;
        top_.eval();
        top_.clk = 0;
        top_.eval();
        ++cycle_;
    }

    void write(uint32_t address, uint32_t data) {
        top_.s_axil_awaddr = address;
        top_.s_axil_wdata = data;
        top_.s_axil_wstrb = 15;
        aw_.ask(), w_.ask(), b_.ask();
        while (aw_.asked() || w_.asked() || b_.asked()) cycle();
    }

    uint32_t read(uint32_t address) {
        top_.s_axil_araddr = address;
        ar_.ask(), r_.ask();
        while (ar_.asked() || r_.asked()) cycle();
        return read_data_;
    }

    void emit(char kind) {
        Event event = {};
        event.kind = uint64_t(kind);
        event.job = job_;
        event.cycle = cycle_;
        event.activations = activation_->taken();
        event.weights = weight_->taken();
        event.scales = scale_->taken();
        sink_->report(event);
        event.job_cycles = finished_ - started_ - 1;
        event.nanoseconds = uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                         std::chrono::steady_clock::now() - start_)
                                         .count());
        put(&event, sizeof event);
    }

    static void put(const void* data, size_t bytes) {
        if (bytes && std::fwrite(data, 1, bytes, stdout) != bytes) std::exit(4);
    }

    Varray top_;
    Header header_;
    std::vector<uint64_t> writes_, reads_, values_;
    std::vector<uint8_t> activations_, weights_, scales_;
    std::unique_ptr<Source> activation_, weight_, scale_;
    std::unique_ptr<Sink> sink_;
    std::chrono::steady_clock::time_point start_;
    uint64_t job_ = 0, cycle_ = 0, begun_ = 0, started_ = 0, finished_ = 0;
    uint32_t read_data_ = 0;
    Channel aw_, w_, b_, ar_, r_;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) die("usage: array INPUT");
    // On the heap: a wide array's model is larger than a stack.
    std::unique_ptr<Bench> bench(new Bench(argv[1]));
    return bench->run();
}

// Tells torch that there is one GPU, on which nothing can be computed: tests/gpu/pretend.py does that. Compiled with
// -DKIND=CUDA or MPS, for a torch that was built without.

#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#define JOINED(left, right) left##right
#define JOIN(left, right) JOINED(left, right)
#define REGISTER_GUARD(kind) C10_REGISTER_GUARD_IMPL(kind, Guard)

using c10::Device, c10::DeviceIndex, c10::DeviceType, c10::Stream;

namespace {

const Device GPU(DeviceType::KIND, 0);
const Stream STREAM(Stream::DEFAULT, GPU);

struct Guard final : c10::impl::NoOpDeviceGuardImpl<DeviceType::KIND> {
    Device getDevice() const override { return GPU; }
    Device exchangeDevice(Device) const override { return GPU; }
    Stream getStream(Device) const noexcept override { return STREAM; }
    Stream exchangeStream(Stream) const noexcept override { return STREAM; }
    void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
    void block(void*, const Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
};

REGISTER_GUARD(KIND)

}  // namespace

namespace at {

// torch looks for a class of this name.
struct JOIN(KIND, Hooks) final : JOIN(KIND, HooksInterface) {
    template <typename... Arguments>
    explicit JOIN(KIND, Hooks)(Arguments&&...) {}
    void init() const override {}
    bool JOIN(has, KIND)() const override { return true; }
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasPrimaryContext(DeviceIndex) const override { return true; }
    DeviceIndex deviceCount() const override { return 1; }
    DeviceIndex getCurrentDevice() const override { return 0; }
    void setCurrentDevice(DeviceIndex) const override {}
    DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
    DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
};

JOIN(REGISTER_, JOIN(KIND, _HOOKS))(JOIN(KIND, Hooks))

}  // namespace at

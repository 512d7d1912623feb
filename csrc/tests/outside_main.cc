#include <cstdio>

int outside();

int main() {
    const int failed = outside();
    if (failed) std::printf("check %d of outside.cc failed\n", failed);
    return failed;
}
